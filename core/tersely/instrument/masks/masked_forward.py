"""The forward of linear layers that mask a large weight where they use it.

A mask costs memory traffic: a masked weight and a masked gradient are written and read again, each
as large as the weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tersely.instrument.masks import masked_linear
from tersely.instrument.masks.mask_transforms import ParameterMask
from tersely.instrument.masks.mask_values import need_whole_as_written
from tersely.instrument.modules.eager import are_plain, is_eager
from tersely.instrument.names import INSTRUMENTS, LOST
from tersely.instrument.shown.lost_writes import need_no_lost_write

WEIGHT = "weight"


Computed: TypeAlias = Callable[[nn.Module, str], Tensor | None]
"""Returns a target of a module as forward computes with it."""


def masked_forward(cls: type[nn.Module], computed: Computed) -> Callable[..., Any]:
    """Return the forward for a class whose weight is a target.

    Args:
        cls: the user's class.
        computed: what computes a target.

    Returns:
        The class's own forward, unless that is the one of PyTorch's linear layer.
    """
    own: Any = cls
    original: Callable[..., Any] = own.forward
    return _linear(original, computed) if original is nn.Linear.forward else original


def _linear(original: Callable[..., Tensor], computed: Computed) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def forward(self: Any, input: Tensor) -> Tensor:
        # Hooks of other tools keep this forward, and call it after detach() and finalize() too.
        instruments = self.__dict__.get(INSTRUMENTS)
        if instruments is None or WEIGHT not in instruments.parameters:
            return original(self, input)
        if torch.compiler.is_compiling():
            return original(self, input)
        if LOST in self.__dict__:
            need_no_lost_write(self)
        # This forward only reads: its weight need not be one whose writes act on the parameter.
        bias = computed(self, "bias") if "bias" in instruments.parameters else self.bias
        found = _lone_mask(self, input)
        if found is None or not _is_small_batch(input, found[0]):
            weight: Any = computed(self, WEIGHT)
            return functional.linear(input, weight, bias)
        return masked_linear.multiply(input, *found, bias)

    return forward


def _is_small_batch(value: Tensor, weight: Tensor) -> bool:
    inputs = weight.shape[1]
    return value.shape[-1:] == (inputs,) and value.numel() <= masked_linear.LARGEST_BATCH * inputs


def _lone_mask(module: nn.Module, value: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return a weight and its mask, or None where PyTorch's own forward has to compute."""
    steps = module.__dict__[INSTRUMENTS].parameters[WEIGHT]
    if len(steps) != 1 or type(steps[0]) is not ParameterMask or steps[0].is_additive:
        return None
    if steps[0].is_held or steps[0].is_dense:
        return None
    mask = module._buffers.get(steps[0].buffer)
    # While a module is traced a size is a tensor, which decides nothing.
    if mask is None or torch._C._get_tracing_state() is not None:
        return None
    # The size comes early: a call of a small layer takes little longer than all these questions.
    if mask.numel() < masked_linear.SMALLEST or not is_eager():
        return None
    weight = module._parameters.get(WEIGHT)
    # A mask of whole rows or columns is small, and one that learns wants a gradient.
    if weight is None or mask.shape != weight.shape or mask.requires_grad:
        return None
    is_plain = are_plain(value, weight, mask, module._parameters.get("bias"))
    if is_plain:
        need_whole_as_written(module, steps[0].buffer, mask)
    return (weight, mask) if is_plain else None
