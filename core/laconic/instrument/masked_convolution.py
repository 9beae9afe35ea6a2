"""A convolution that masks its weight again in backward instead of keeping the masked copy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALLEST = 1 << 16
"""Elements of a weight from which on this pays."""

Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Stride, padding, dilation and groups."""


def convolve(
    value: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """Return the convolution of a batch with weight * mask, computed as PyTorch does.

    Args:
        value: shape (batch, inputs, ...), float.
        weight: shape (outputs, inputs / groups, ...), float; not modified.
        mask: shape of the weight, in its dtype: 1 kept and 0 masked.
        bias: shape (outputs,), or None.
        geometry: how it is convolved.
    """
    result: Tensor = _MaskedConvolution.apply(value, weight, mask, bias, geometry)  # type: ignore[no-untyped-call]  # of torch
    return result


class _MaskedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        weight: Tensor,
        mask: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(value, weight, mask)
        ctx.geometry = geometry
        stride, padding, dilation, groups = geometry
        still = (0,) * len(stride)
        return torch.convolution(
            value, weight * mask, bias, stride, padding, dilation, False, still, groups
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        value, weight, mask = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        wanted = ctx.needs_input_grad
        by_value, by_weight, by_bias = torch.ops.aten.convolution_backward(
            gradient,
            value,
            weight * mask,
            [len(weight)] if wanted[3] else None,
            stride,
            padding,
            dilation,
            False,
            (0,) * len(stride),
            groups,
            [wanted[0], wanted[1], wanted[3]],
        )
        if wanted[1]:
            # Ours until it is returned, so it is masked where it is.
            by_weight = by_weight * mask if torch.is_grad_enabled() else by_weight.mul_(mask)
        return by_value, by_weight, None, by_bias, None
