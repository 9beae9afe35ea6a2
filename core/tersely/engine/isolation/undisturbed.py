"""A model that foreign code may do anything to: all of it is undone."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import attrs
from torch import Tensor, nn

from tersely.instrument.names import INSTRUMENTS
from tersely.instrument.tapping import Tap


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Restore a model after the block, bit for bit, whatever happens inside.

    Inside, it is in eval mode and its parameters have no gradients. It takes the memory of a copy.
    What the block adds to containers inside of containers stays.

    Args:
        model: the model, whose parameters are not sharded.
    """
    modules = [_Module.of(module) for module in model.modules()]
    tensors = [_Values.of(tensor) for tensor in chain(model.parameters(), model.buffers())]
    taps = [(tap, tap.value, tap.problem) for tap in _taps(model)]
    try:
        model.eval()
        for one in tensors:
            one.tensor.grad = None
        yield
    finally:
        for before in modules:
            before.put_back()
        for one in tensors:
            one.put_back()
        for tap, value, problem in taps:
            tap.value, tap.problem = value, problem


@attrs.frozen(eq=False)
class _Module:
    """What a module has: its class, attributes, and what is in those that are containers."""

    module: nn.Module
    cls: type[nn.Module]
    attributes: dict[str, Any]
    contents: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> _Module:
        attributes = dict(module.__dict__)
        contents = {
            name: copy.copy(value)
            for name, value in attributes.items()
            if type(value) in (dict, OrderedDict, set, list)
        }
        return cls(module, type(module), attributes, contents)

    def put_back(self) -> None:
        object.__setattr__(self.module, "__class__", self.cls)
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)
        for name, before in self.contents.items():
            container = self.attributes[name]
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(before)


@attrs.frozen(eq=False)
class _Values:
    """A parameter or buffer: values, gradient, whether it asks for one, hooks and attributes."""

    tensor: Tensor
    storage: Tensor
    values: Tensor | None
    gradient: Tensor | None
    is_learning: bool
    hooks: dict[str, dict[int, Any] | None]
    attributes: dict[str, Any]

    @classmethod
    def of(cls, tensor: Tensor) -> _Values:
        storage = tensor.data
        # One whose elements share memory, as those of an expanded one do, cannot be written to.
        is_written = all(storage.stride(dim) or size <= 1 for dim, size in enumerate(storage.shape))
        values = storage.clone() if is_written else None
        hooks: dict[str, dict[int, Any] | None] = {}
        for name in _HOOKS:
            found = getattr(tensor, name)
            hooks[name] = None if found is None else dict(found)
        attributes = dict(tensor.__dict__)
        return cls(tensor, storage, values, tensor.grad, tensor.requires_grad, hooks, attributes)

    def put_back(self) -> None:
        if self.values is not None:
            self.storage.copy_(self.values)
        if not self.tensor.is_leaf:  # written in place with something that has a graph
            self.tensor.detach_()
        if _place(self.tensor) != _place(self.storage):
            self.tensor.data = self.storage
        self.tensor.requires_grad_(self.is_learning)
        self.tensor.grad = self.gradient
        for name, before in self.hooks.items():
            found = getattr(self.tensor, name)
            if found is not None:  # the very dictionary from which a handle removes its hook
                found.clear()
                found.update(before or {})
        self.tensor.__dict__.clear()
        self.tensor.__dict__.update(self.attributes)


_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Where the elements of a tensor are, and how they are read."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _taps(model: nn.Module) -> Iterator[Tap]:
    for module in model.modules():
        instruments = module.__dict__.get(INSTRUMENTS)
        if instruments is None:
            continue
        sites = (instruments.parameters, instruments.inputs, instruments.outputs)
        for steps in chain.from_iterable(one.values() for one in sites):
            yield from (step for step in steps if isinstance(step, Tap))
