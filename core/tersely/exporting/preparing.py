"""A session's model with integers in place of its weights, restored after the block.

The user's own Parameter objects are restored bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor, nn

from tersely.exporting.changing import changed
from tersely.exporting.refusing import Integers, need_to_hold
from tersely.instrument.names import INSTRUMENTS, PREFIX
from tersely.quantization.integers import IntegerTensor


@contextmanager
def with_integers(
    model: nn.Module, integers: Integers, *, norms: Mapping[nn.Module, nn.Module]
) -> Iterator[Mapping[nn.Module, Collection[str]]]:
    """Replace the quantized parameters of a model by integers inside the block.

    Yields modules -> names of their buffers with integers, scales and zero points.

    Args:
        model: the session's model, attached or finalized.
        integers: its quantized parameters.
        norms: layers of a finished model -> the batch norm folded into each.

    Raises:
        ExportError: an exported program cannot hold a target; the model is unchanged.
    """
    need_to_hold(model, integers)
    stored: dict[nn.Module, dict[str, IntegerTensor]] = {}
    for bound, tensor in integers:
        for module, name in bound.owners:
            stored.setdefault(module, {})[name] = tensor
    taken_up = set(norms.values())
    touched = {*stored, *norms, *taken_up}
    modules = [
        module for module in model.modules() if INSTRUMENTS in module.__dict__ or module in touched
    ]
    before = [_Before.of(module) for module in modules]
    # By the identity of the old tensors: a tied parameter stays one.
    made: dict[tuple[int, str], Tensor] = {}
    try:
        # All values are computed first: a folded layer reads its norm, whose tensors are removed
        # below.
        changes = [
            changed(
                module,
                stored.get(module, {}),
                made,
                norm=norms.get(module),
                is_taken_up=module in taken_up,
            )
            for module in modules
        ]
        for change in changes:
            change.put()
        yield {change.module: change.stored for change in changes}
    finally:
        for one in before:
            one.put_back()


@attrs.frozen(eq=False)
class _Before:
    """The state of a module before the change.

    Attributes:
        module: the module.
        cls: its class.
        parameters: its parameters.
        buffers: its buffers.
        reserved: its attributes under the reserved prefix.
    """

    module: nn.Module
    cls: type[nn.Module]
    parameters: Mapping[str, nn.Parameter | None]
    buffers: Mapping[str, Tensor | None]
    reserved: Mapping[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> _Before:
        """Record the state of a module."""
        reserved = {name: one for name, one in module.__dict__.items() if name.startswith(PREFIX)}
        return cls(module, type(module), dict(module._parameters), dict(module._buffers), reserved)

    def put_back(self) -> None:
        """Restore the module."""
        module = self.module
        object.__setattr__(module, "__class__", self.cls)
        for content, known in (
            (module._parameters, self.parameters),
            (module._buffers, self.buffers),
        ):
            content.clear()
            content.update(known)  # type: ignore[arg-type]  # each has its own kind
        for name in [name for name in module.__dict__ if name.startswith(PREFIX)]:
            del module.__dict__[name]
        module.__dict__.update(self.reserved)
