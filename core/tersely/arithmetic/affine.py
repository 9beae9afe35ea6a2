"""Affine arithmetic: from values to integers, back, and both at once, as ``QParams`` say."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely.arithmetic.broadcasting import implied_size, interleaved_shape, lay_out
from tersely.arithmetic.fake_quantization import fake_quantize_flat
from tersely.arithmetic.level_tables import nearest_levels
from tersely.arithmetic.levels import (
    Limits,
    divide,
    levels_by_piece,
    precision,
    with_rank,
)
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import FLOAT8, storage_type


@torch.no_grad()
def quantize(tensor: Tensor, qparams: QParams) -> Tensor:
    """Return the quantized values: clamp(round(tensor / scale) + zero_point), ties to even.

    A float zero point is added before rounding. Of a level table it is the index of the nearest
    level, of two that are equally near the lower one.

    Works piece by piece through one small scratch tensor; apart from the result, nothing of the
    tensor's size is allocated.

    Args:
        tensor: any shape, float.
        qparams: how to quantize it.

    Returns:
        ``tensor``'s shape, in the smallest integer type that holds the range, or the float8 type.

    Raises:
        ValueError: the blocks of ``qparams`` are not those of the tensor.
    """
    stored = FLOAT8.get(qparams.dtype) or storage_type(qparams.quant_min, qparams.quant_max)
    result = torch.empty_like(tensor, dtype=stored)
    inner, scale, zero_point = _laid_out(qparams, tensor.shape)
    if qparams.levels is not None:
        levels = qparams.levels.to(precision(scale))
        found = nearest_levels(divide(tensor.view(inner), scale), levels)
        return result.copy_(found.view(tensor.shape))
    if zero_point is not None and not torch.compiler.is_compiling() and not zero_point.any():
        zero_point = None
    made = levels_by_piece(
        tensor.view(inner), scale, zero_point, _limits(qparams), into=result.view(inner)
    )
    for target, integers, _, _ in made:
        target.copy_(integers)
    return result


def dequantize(quantized: Tensor, qparams: QParams) -> Tensor:
    """Return (quantized - zero_point) * scale, or of a level table levels[quantized] * scale.

    Args:
        quantized: any shape, as `quantize` returns it.
        qparams: how it was quantized.

    Returns:
        ``quantized``'s shape; float32, or float64 where the scale is.

    Raises:
        ValueError: the blocks of ``qparams`` are not those of the tensor.
    """
    inner, scale, zero_point = _laid_out(qparams, quantized.shape)
    if qparams.levels is not None:
        levels = qparams.levels.to(precision(scale))[quantized.view(inner).int()]
    else:
        levels = quantized.view(inner).to(precision(scale))
        if zero_point is not None:
            levels = levels - zero_point
    return (levels * scale).view(quantized.shape)


def fake_quantize(tensor: Tensor, qparams: QParams, *, clip_gradient: bool = False) -> Tensor:
    """Quantize and dequantize, with a straight-through gradient.

    Args:
        tensor: any shape, float.
        qparams: how to quantize it.
        clip_gradient: pass no gradient where the value is outside of the range.

    Returns:
        ``tensor``'s shape and dtype.

    Raises:
        ValueError: the blocks of ``qparams`` are not those of the tensor.
    """
    return fake_quantize_flat(
        tensor,
        qparams.scale,
        None if qparams.dtype in FLOAT8 or qparams.levels is not None else qparams.zero_point,
        quant_min=qparams.quant_min,
        quant_max=qparams.quant_max,
        dtype=qparams.dtype,
        size=qparams.block_size,
        clip_gradient=clip_gradient,
        is_zero_first=qparams.has_float_zero_point,
        levels=qparams.levels,
    )


def _limits(qparams: QParams) -> Limits:
    float8 = FLOAT8.get(qparams.dtype)
    return Limits(qparams.quant_min, qparams.quant_max, float8, qparams.has_float_zero_point)


def _laid_out(qparams: QParams, shape: torch.Size) -> tuple[tuple[int, ...], Tensor, Tensor | None]:
    # The shape to view the tensor in, and scale and zero point with as many dimensions.
    scale, zero_point, size = qparams.scale, qparams.zero_point, qparams.block_size
    inner: tuple[int, ...] = tuple(shape)
    if size is None:
        scale, zero_point = with_rank(scale, len(shape)), with_rank(zero_point, len(shape))
        size = implied_size(scale.shape, shape)
    if size is not None:
        inner = interleaved_shape(size, shape)
        scale, zero_point = lay_out(scale, size, shape), lay_out(zero_point, size, shape)
    if qparams.dtype in FLOAT8:
        return inner, scale, None
    return inner, scale, zero_point.to(precision(scale))
