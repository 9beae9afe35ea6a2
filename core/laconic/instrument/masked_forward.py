"""Forwards that multiply by a masked weight and keep no masked copy of it for backward.

A mask costs memory traffic: a masked weight and a masked gradient are written and read again, each
as large as the weight. Layers whose weight is masked and nothing else mask it where it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from laconic.instrument import masked_convolution, masked_linear
from laconic.instrument.eager import are_plain, is_eager
from laconic.instrument.masks import ParameterMask
from laconic.instrument.names import INSTRUMENTS

WEIGHT = "weight"

_CONVOLUTIONS: tuple[tuple[Any, int], ...] = ((nn.Conv2d, 4), (nn.Conv3d, 5))
"""Convolutions, and how many dimensions a batch has there."""
# Not Conv1d: PyTorch computes it in two dimensions, so within a function it returns a view, on
# which nothing may work in place.


def masked_forward(cls: type[nn.Module]) -> Callable[..., Any]:
    """Return the forward for a class whose weight is a target.

    Args:
        cls: the user's class.

    Returns:
        The class's own forward, unless that is the one of PyTorch's linear layer or convolution.
    """
    own: Any = cls
    original: Callable[..., Any] = own.forward
    if original is nn.Linear.forward:
        return _linear(original)
    for kind, rank in _CONVOLUTIONS:
        if original is kind.forward and own._conv_forward is kind._conv_forward:
            return _convolution(original, rank)
    return original


def _linear(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def forward(self: Any, input: Tensor) -> Tensor:
        found = _lone_mask(self, input, masked_linear.SMALLEST)
        if found is None or not _is_small_batch(input, found[0]):
            return original(self, input)
        return masked_linear.multiply(input, *found, self.bias)

    return forward


def _convolution(original: Callable[..., Tensor], rank: int) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def forward(self: Any, input: Tensor) -> Tensor:
        found = _lone_mask(self, input, masked_convolution.SMALLEST)
        if (
            found is None
            or input.ndim != rank
            or self.padding_mode != "zeros"
            or isinstance(self.padding, str)
            or "_conv_forward" in self.__dict__
        ):
            return original(self, input)
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return masked_convolution.convolve(input, *found, self.bias, geometry)

    return forward


def _is_small_batch(value: Tensor, weight: Tensor) -> bool:
    inputs = weight.shape[1]
    return value.shape[-1:] == (inputs,) and value.numel() <= masked_linear.LARGEST_BATCH * inputs


def _lone_mask(module: nn.Module, value: Tensor, smallest: int) -> tuple[Tensor, Tensor] | None:
    """Return a weight and its mask, or None where PyTorch's own forward has to compute."""
    if not is_eager():
        return None
    steps = module.__dict__[INSTRUMENTS].parameters[WEIGHT]
    if len(steps) != 1 or type(steps[0]) is not ParameterMask or steps[0].is_additive:
        return None
    weight, mask = module._parameters.get(WEIGHT), module._buffers.get(steps[0].buffer)
    # A mask of whole rows or columns is small, and one that learns wants a gradient.
    if weight is None or mask is None or mask.shape != weight.shape or mask.requires_grad:
        return None
    if mask.numel() < smallest:
        return None
    is_plain = are_plain(value, weight, mask, module._parameters.get("bias"))
    return (weight, mask) if is_plain else None
