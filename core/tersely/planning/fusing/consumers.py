"""Which module alone consumes what another one produces, found by running the model once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from tersely.contracts.calling import call_model

# What only asks about a tensor does not consume its values.
_QUESTIONS = frozenset({"__get__", "dim", "is_contiguous", "numel", "size", "stride"})


def sole_consumers(
    model: nn.Module, example_inputs: Any, modules: Collection[nn.Module]
) -> dict[nn.Module, nn.Module]:
    """Run a model once, and tell which modules hand their output to one other module and no more.

    Args:
        model: the model; run in evaluation mode, and as it was afterwards.
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
        modules: the modules that can produce or consume, none of them inside of another.

    Returns:
        A module -> the module of which the first input is its output, where both ran once and
        nothing else reads that output.
    """
    watch = _Watch()
    training = [module for module in model.modules() if module.training]
    hooks = []
    try:
        for module in modules:
            hooks.append(module.register_forward_pre_hook(watch.enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(watch.leave))
        for module in training:
            module.training = False
        with torch.no_grad(), watch:
            result = call_model(model, example_inputs)
        for tensor in _tensors(result):
            watch.use(tensor)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return dict(watch.found())


@attrs.define(eq=False)
class _Output:
    """A tensor from the moment a module returned it.

    Attributes:
        producer: the module.
        tensor: the tensor, kept so that no other takes its identity.
        uses: the innermost watched module at each use, or None outside of all.
    """

    producer: nn.Module
    tensor: Tensor
    uses: list[nn.Module | None] = attrs.field(factory=list)


class _Watch(TorchFunctionMode):
    """Follows tensors by identity; a module that writes into its input becomes its producer."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: dict[int, _Output] = {}
        self.outputs: list[_Output] = []
        self.received: dict[nn.Module, _Output | None] = {}
        self.runs: dict[nn.Module, int] = {}
        self.inside: list[nn.Module] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # torch passes it
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") not in _QUESTIONS:
            for tensor in _tensors((args, kwargs)):
                self.use(tensor)
        return func(*args, **(kwargs or {}))

    def use(self, tensor: Tensor) -> None:
        """Note that something reads a tensor.

        Args:
            tensor: any tensor.
        """
        output = self.latest.get(id(tensor))
        if output is not None:
            output.uses.append(self.inside[-1] if self.inside else None)

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Note that a module begins, and what it is given."""
        self.inside.append(module)
        self.runs[module] = self.runs.get(module, 0) + 1
        first = next(iter((*args, *kwargs.values())), None)
        self.received[module] = self.latest.get(id(first))

    def leave(self, module: nn.Module, _: object, output: object) -> None:
        """Note that a module has returned, and what it returns."""
        self.inside.pop()
        if isinstance(output, Tensor):
            self.outputs.append(_Output(module, output))
            self.latest[id(output)] = self.outputs[-1]

    def found(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield producers with their only consumers."""
        for consumer, output in self.received.items():
            if output is None or not output.uses:
                continue
            ran_once = self.runs[consumer] == self.runs[output.producer] == 1
            if ran_once and all(use is consumer for use in output.uses):
                yield output.producer, consumer


def _tensors(value: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(value) if isinstance(leaf, Tensor))
