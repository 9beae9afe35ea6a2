"""Weights that are masked in place; the values of masked elements are stored separately.

State of one held parameter, between two calls that change its mask:

=====================  ====================================================
what                   value
=====================  ====================================================
the Parameter          zero where the mask is zero, in the user's own tensor
`HeldWeight.values`    the values of the masked elements, in flat order
`HeldWeight.mask`      the buffer that told which elements these are
=====================  ====================================================
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.instrument.instruments import Instruments
from tersely.instrument.masks.mask_transforms import ParameterMask
from tersely.instrument.masks.mask_values import is_decided
from tersely.instrument.names import HELD, INSTRUMENTS, mask_buffer


@attrs.define(eq=False, slots=False)
class HeldWeight:
    """The values of masked elements while the parameter itself is zero there.

    Mutable, because masks change. A copy or pickle of a model has no session that would zero its
    weights, so its parameters are masked when they are read.

    Attributes:
        is_in_force: whether somebody sees to it that the parameter itself is zero where it is
            masked; not so in copies, until a session that was copied with the model does.
        values: shape (masked elements,), the parameter's dtype; None while nothing is masked.
        mask: the mask that was applied, 1 kept and 0 masked; None while nothing is masked.
    """

    is_in_force: bool = attrs.field(default=False, init=False)
    values: Tensor | None = attrs.field(default=None, init=False)
    mask: Tensor | None = attrs.field(default=None, init=False)

    def keep(self, tensor: Tensor, mask: Tensor) -> None:
        """Note a mask that `zero` is about to apply; the first time what is masked is kept.

        Args:
            tensor: the parameter.
            mask: 1 kept and 0 masked, a shape that broadcasts to the parameter's.
        """
        if self.values is None:
            raw = tensor.detach()
            self.values = raw[_masked(mask, raw)]
        self.mask, self.is_in_force = mask, True

    def release(self, tensor: Tensor) -> None:
        """Give the masked elements their values back, in place.

        Args:
            tensor: the parameter; modified.
        """
        if self.values is not None and self.mask is not None:
            raw = tensor.detach()
            raw[_masked(self.mask, raw)] = self.values.to(raw)
        self.forget()

    def forget(self) -> None:
        """Drop what is kept: the parameter is masked when it is read from now on."""
        self.is_in_force, self.values, self.mask = False, None, None

    def spread(self, shape: Sequence[int]) -> Tensor:
        """Return what is kept in the parameter's shape, zero where nothing is masked.

        Args:
            shape: the parameter's.
        """
        if self.values is None or self.mask is None:
            return torch.zeros(tuple(shape))
        full = self.values.new_zeros(tuple(shape))
        full[_masked(self.mask, full)] = self.values
        return full

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldWeight:
        twin = HeldWeight()
        twin.values, twin.mask = copy.deepcopy((self.values, self.mask), memo)
        return twin

    def __reduce__(self) -> tuple[type[HeldWeight], tuple[()]]:
        return HeldWeight, ()


@torch.no_grad()
def zero(tensors: list[Tensor], masks: list[Tensor]) -> None:
    """Zero the masked elements of parameters in place, all in one call.

    Args:
        tensors: the parameters; modified.
        masks: the mask of each: 1 kept and 0 masked, a shape that broadcasts to the parameter's.
    """
    if tensors:
        # A call for each would take longer than the products of small layers.
        torch._foreach_mul_(
            tensors,
            [
                mask if mask.dtype == tensor.dtype else mask.to(tensor.dtype)
                for tensor, mask in zip(tensors, masks, strict=True)
            ],
        )


def _masked(mask: Tensor, tensor: Tensor) -> Tensor:
    return (mask.to(tensor.device) == 0).expand(tensor.shape)


def held_values(mask: Tensor, full: Tensor) -> Tensor:
    """Return the values of a tensor's masked elements, in flat order.

    Args:
        mask: 1 or True kept, 0 or False masked, a shape that broadcasts to the tensor's.
        full: the tensor.
    """
    return full[_masked(mask, full)]


def dense_values(module: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """Return a copy of a parameter or buffer as it is without masks.

    Args:
        module: the module that holds it, instrumented or not.
        name: its name there.
        tensor: its values.
    """
    values = tensor.detach().clone()
    held: HeldWeight | None = module.__dict__.get(HELD, {}).get(mask_buffer(name))
    if held is not None and held.values is not None and held.mask is not None:
        values[_masked(held.mask, values)] = held.values.to(values)
    return values


def kept_by(module: nn.Module) -> dict[str, Tensor]:
    """Return what an instrumented module keeps of its held parameters, in their shapes.

    Args:
        module: an instrumented module.
    """
    return {
        name: held.spread(tensor.shape)
        for name, held, tensor, _ in _held_parameters(module)
        if held.is_in_force
    }


def hold_loaded(module: nn.Module, kept: dict[str, Tensor]) -> None:
    """Mask parameters in place that a checkpoint has just filled.

    What a dense checkpoint brings for masked elements is kept in place of the previous values.
    One whose masked elements are all zero was written by a held model, which says nothing of them.

    Args:
        module: an instrumented module.
        kept: what `kept_by` returned before.
    """
    for name, held, tensor, mask in _held_parameters(module):
        if name not in kept or mask is None or not is_decided(mask):
            continue
        loaded = held_values(mask, tensor.detach())
        held.forget()
        held.keep(tensor, mask)
        zero([tensor], [mask])
        held.values = loaded if bool(loaded.any()) else held_values(mask, kept[name])


def _held_parameters(module: nn.Module) -> list[tuple[str, HeldWeight, Tensor, Tensor | None]]:
    holds: dict[str, HeldWeight] = module.__dict__.get(HELD, {})
    if not holds:
        return []
    instruments: Instruments = module.__dict__[INSTRUMENTS]
    found = []
    for name, steps in instruments.parameters.items():
        tensor: Tensor | None = module._parameters.get(name)
        tensor = module._buffers.get(name) if tensor is None else tensor
        for step in steps:
            if tensor is not None and isinstance(step, ParameterMask) and step.is_held:
                found.append((name, holds[step.buffer], tensor, module._buffers.get(step.buffer)))
    return found
