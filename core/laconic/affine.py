"""Affine arithmetic: from values to integers, back, and both at once, as ``QParams`` say."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from laconic.algorithms import QParams
from laconic.blocks import implied_size, interleaved_shape, lay_out
from laconic.fake_quantization import (
    divide,
    fake_quantize_flat,
    precision,
    to_levels_,
    to_values_,
)
from laconic.pieces import piece, pieces
from laconic.quantized_types import FLOAT8, quantized_range, storage_type
from laconic.scales import check_range, choose_qparams

__all__ = [
    "check_range",
    "choose_qparams",
    "dequantize",
    "fake_quantize",
    "fake_quantize_",
    "quantize",
    "quantized_range",
]

_LARGEST_PIECE = 2**18
"""Elements worked on at a time: few enough to stay in a cache from one operation to the next."""

_LARGEST_PIECE_ON_A_DEVICE = 2**24
"""The same where starting an operation costs more than reading from memory."""


@torch.no_grad()
def quantize(tensor: Tensor, qparams: QParams) -> Tensor:
    """Return the quantized values: clamp(round(tensor / scale) + zero_point), ties to even.

    Works piece by piece through one small scratch tensor; beside the result nothing of the
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
    for into, levels, _, _ in _levels(tensor, qparams, into=result):
        into.copy_(levels)
    return result


def dequantize(quantized: Tensor, qparams: QParams) -> Tensor:
    """Return (quantized - zero_point) * scale.

    Args:
        quantized: any shape, as `quantize` returns it.
        qparams: how it was quantized.

    Returns:
        ``quantized``'s shape; float32, or float64 where the scale is.

    Raises:
        ValueError: the blocks of ``qparams`` are not those of the tensor.
    """
    inner, scale, zero_point = _laid_out(qparams, quantized.shape)
    levels = quantized.view(inner).to(precision(scale))
    if zero_point is not None:
        levels = levels - zero_point
    return (levels * scale).view(quantized.shape)


def fake_quantize(tensor: Tensor, qparams: QParams, *, clip_gradient: bool = False) -> Tensor:
    """Quantize and dequantize, with a straight-through gradient.

    Args:
        tensor: any shape, float.
        qparams: how to quantize it.
        clip_gradient: pass no gradient where the value lies outside the range.

    Returns:
        ``tensor``'s shape and dtype.

    Raises:
        ValueError: the blocks of ``qparams`` are not those of the tensor.
    """
    return fake_quantize_flat(
        tensor,
        qparams.scale,
        None if qparams.dtype in FLOAT8 else qparams.zero_point,
        quant_min=qparams.quant_min,
        quant_max=qparams.quant_max,
        dtype=qparams.dtype,
        size=qparams.block_size,
        clip_gradient=clip_gradient,
    )


@torch.no_grad()
def fake_quantize_(tensor: Tensor, qparams: QParams) -> Tensor:
    """Quantize and dequantize in place, piece by piece; the values are those of `fake_quantize`.

    Args:
        tensor: any shape, float; overwritten.
        qparams: how to quantize it.

    Returns:
        ``tensor``.

    Raises:
        ValueError: the blocks of ``qparams`` are not those of the tensor.
    """
    float8 = FLOAT8.get(qparams.dtype)
    for into, levels, scale, zero_point in _levels(tensor, qparams, into=tensor):
        into.copy_(to_values_(levels, scale, zero_point, float8=float8))
    return tensor


def _levels(
    tensor: Tensor, qparams: QParams, *, into: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    # Piece by piece: the view of `into` to write to, the levels, in scratch memory that the next
    # piece overwrites, and the piece's scale and zero point.
    inner, scale, zero_point = _laid_out(qparams, tensor.shape)
    values, into = tensor.view(inner), into.view(inner)
    is_on_cpu = tensor.device.type == "cpu"
    largest = min(tensor.numel(), _LARGEST_PIECE if is_on_cpu else _LARGEST_PIECE_ON_A_DEVICE)
    scratch = torch.empty(largest, dtype=precision(scale), device=tensor.device)
    for index in pieces(inner, largest=largest):
        part, scales = piece(values, index), piece(scale, index)
        zero_points = None if zero_point is None else piece(zero_point, index)
        levels = divide(part, scales, out=scratch[: part.numel()].view(part.shape))
        to_levels_(
            levels,
            zero_points,
            quant_min=qparams.quant_min,
            quant_max=qparams.quant_max,
            float8=FLOAT8.get(qparams.dtype),
        )
        yield piece(into, index), levels, scales, zero_points


def _laid_out(qparams: QParams, shape: torch.Size) -> tuple[tuple[int, ...], Tensor, Tensor | None]:
    # The shape to view the tensor in, and scale and zero point with as many dimensions.
    scale, zero_point, size = qparams.scale, qparams.zero_point, qparams.block_size
    inner: tuple[int, ...] = tuple(shape)
    if size is None:
        missing = (1,) * (len(shape) - scale.ndim)
        scale = scale.view(missing + scale.shape)
        zero_point = zero_point.view(missing + zero_point.shape)
        size = implied_size(scale.shape, shape)
    if size is not None:
        inner = interleaved_shape(size, shape)
        scale, zero_point = lay_out(scale, size, shape), lay_out(zero_point, size, shape)
    return inner, scale, None if qparams.dtype in FLOAT8 else zero_point
