"""Fake quantization as one differentiable function of plain tensors and numbers.

It runs in every forward, so it allocates its result and works in place from there on. The
arguments are flat so that ``torch.compile`` and ``torch.export`` see nothing but tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tersely.arithmetic.blocks import implied_size, interleaved_shape, lay_out
from tersely.arithmetic.levels import (
    Limits,
    divide,
    is_cut,
    precision,
    simulate,
    to_levels_,
    to_values_,
    with_rank,
)
from tersely.arithmetic.quantized_types import FLOAT8


def fake_quantize_flat(  # noqa: PLR0913  # flat, so that compilers see tensors and numbers
    value: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    *,
    quant_min: int,
    quant_max: int,
    dtype: str | None = None,
    size: Sequence[int] | None = None,
    clip_gradient: bool = False,
    known: Tensor | None = None,
) -> Tensor:
    """Quantize and dequantize (rule Q2.5, or Q2.6 for a float8 type), half to even.

    Computed in float32, or float64 where the scale is. No gradient reaches the scale or the zero
    point.

    Args:
        value: any shape, float.
        scale: shape (blocks along each dimension), or one that broadcasts against ``value``. Float,
            positive, value units per integer step.
        zero_point: scale's shape, whole numbers of any dtype, or None where all of them are zero,
            which is a quarter faster.
        quant_min: the smallest integer, 0 or below.
        quant_max: the largest integer, 0 or above.
        dtype: the quantized type, such as ``int8``; all that matters of it is whether it is float8.
        size: elements per block, one integer per dimension, -1 = the whole dimension; None for
            what the shape of the scale implies.
        clip_gradient: pass no gradient where ``value / scale + zero_point``, not rounded, lies
            outside the range. Otherwise the gradient passes as it is. For this ``value`` is kept
            for backward, which is no new memory for a parameter.
        known: what the same value, scale and zero point have given before, or None. Nothing is
            computed then but the gradient.

    Returns:
        ``value``'s shape and dtype; memory of its own, or that of ``known``.

    Raises:
        ValueError: blocks do not divide the shape, or the scale does not have one value per block.
    """
    shape = inner = tuple(value.shape)
    if size is None:
        size = implied_size(scale.shape, shape)
    if size is not None:
        inner = interleaved_shape(size, shape)
        scale = lay_out(scale, size, shape)
        zero_point = None if zero_point is None else lay_out(zero_point, size, shape)
    if inner != shape:
        value = value.view(inner)
    if zero_point is not None:
        # Adding and subtracting integers would convert them each time.
        zero_point = zero_point.to(precision(scale))
    result: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]  # torch has no types here
        value,
        scale,
        zero_point,
        quant_min,
        quant_max,
        FLOAT8.get(dtype) if dtype else None,
        clip_gradient,
        None if known is None else known.view(inner),
    )
    return result if inner == shape else result.view(shape)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        value: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        quant_min: int,
        quant_max: int,
        float8: torch.dtype | None,
        clip_gradient: bool,
        known: Tensor | None,
    ) -> Tensor:
        if known is not None:
            return known.detach()
        limits = Limits(quant_min, quant_max, float8)
        if is_cut(value):
            result = torch.empty_like(value)
            rank = value.ndim
            scale = with_rank(scale, rank)
            zero_point = None if zero_point is None else with_rank(zero_point, rank)
            simulate(value, scale, zero_point, limits, into=result)
            return result
        levels = to_levels_(divide(value, scale), zero_point, limits)
        return to_values_(levels, scale, zero_point, limits).to(value.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        value, scale, zero_point, ctx.quant_min, ctx.quant_max, _, ctx.clip_gradient, _ = inputs
        if ctx.clip_gradient:
            ctx.save_for_backward(value, scale, zero_point)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if ctx.clip_gradient:
            value, scale, zero_point = ctx.saved_tensors
            position = divide(value, scale)
            if zero_point is not None:
                position.add_(zero_point)
            gradient = _inside(gradient, position, ctx.quant_min, ctx.quant_max)
        return gradient, None, None, None, None, None, None, None


def _inside(gradient: Tensor, position: Tensor, quant_min: int, quant_max: int) -> Tensor:
    # One kernel selects by both limits; comparing, joining and multiplying by the truth is three
    # times slower. It leaves its limits out, so it gets the next numbers outside of ours.
    limits = torch.finfo(position.dtype)
    outside = [
        # Three quarters of eps round to one unit in the last place, whatever the mantissa.
        limit + sign * max(abs(limit) * limits.eps * 0.75, limits.smallest_normal * limits.eps)
        for limit, sign in ((quant_min, -1), (quant_max, 1))
    ]
    passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, position, *outside)
    return passed.to(gradient.dtype)
