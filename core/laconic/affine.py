"""Affine arithmetic: ranges, scale and zero point, and the way to integers and back."""

from __future__ import annotations

import re
from typing import Any

import attrs
import torch
from torch import Tensor

from laconic.algorithms import QParams, QuantizationTarget
from laconic.blocks import expand_blocks
from laconic.errors import CalibrationError

SMALLEST_SCALE = torch.finfo(torch.float32).eps
"""No scale is smaller: an all-zero tensor must not divide by zero."""

FLOAT8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
"""Floating-point targets, which have a scale and no zero point."""

_INTEGER = re.compile(r"(u?)int([1-9][0-9]?)\Z")
_LARGEST_BITS = 16


@attrs.frozen
class Range:
    """The values a quantized type can take.

    Attributes:
        quant_min: the smallest.
        quant_max: the largest.
    """

    quant_min: int
    quant_max: int


def quantized_range(dtype: str) -> Range:
    """Return the range of a quantized type.

    A signed type leaves out its lowest value, so that its range is symmetric around zero.

    Args:
        dtype: ``int2`` to ``int16``, ``uint1`` to ``uint16``, ``float8_e4m3fn`` or
            ``float8_e5m2``.

    Raises:
        ValueError: there is no such type.
    """
    if dtype in FLOAT8:
        largest = int(torch.finfo(FLOAT8[dtype]).max)
        return Range(-largest, largest)
    if dtype == "int32":
        # For biases; the largest that float32 holds below 2^31.
        return Range(128 - 2**31, 2**31 - 128)
    match = _INTEGER.match(dtype)
    if match:
        unsigned, bits = bool(match[1]), int(match[2])
        if unsigned and bits <= _LARGEST_BITS:
            return Range(0, 2**bits - 1)
        if not unsigned and 1 < bits <= _LARGEST_BITS:
            return Range(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    raise ValueError(
        f"quant_dtype {dtype!r}: expected int2 to int16, uint1 to uint16, {' or '.join(FLOAT8)}"
    )


def choose_qparams(low: Tensor, high: Tensor, target: QuantizationTarget) -> QParams:
    """Choose scale and zero point for an observed range, as the specification says.

    Symmetric: scale = max(abs(low), abs(high)) / ((quant_max - quant_min) / 2). Affine: scale =
    (high - low) / (quant_max - quant_min), with the zero point where zero falls. The range is
    widened to include zero first. Float8 types are symmetric around zero and only scaled.

    Args:
        low: shape (blocks along each dimension) or 0-dim, float, the smallest value seen.
        high: ``low``'s shape, the largest value seen.
        target: the tensor to quantize.

    Returns:
        Scale: float32, or float64 where the range is. Zero point: int32. Both of ``low``'s shape,
        or 0-dim where the blocks are the whole tensor.

    Raises:
        CalibrationError: a range is empty or not finite.
    """
    check_range(low, high, target.name)
    dtype = torch.float64 if low.dtype == torch.float64 else torch.float32
    low, high = low.detach().to(dtype).clamp(max=0), high.detach().to(dtype).clamp(min=0)
    is_whole = all(size == -1 for size in target.blocks.size)
    if is_whole:
        low, high = low.reshape(()), high.reshape(())
    quant_min, quant_max = target.quant_min, target.quant_max
    if target.dtype in FLOAT8 or target.scheme == "symmetric":
        half_steps = (quant_max - quant_min) / 2
        scale = (torch.maximum(-low, high) / half_steps).clamp(min=SMALLEST_SCALE)
        middle = 0 if target.dtype in FLOAT8 else (quant_max + quant_min + 1) // 2
        zero_point = torch.full_like(scale, middle, dtype=torch.int32)
    else:
        scale = ((high - low) / (quant_max - quant_min)).clamp(min=SMALLEST_SCALE)
        zero_point = (quant_min - torch.round(low / scale)).clamp(quant_min, quant_max)
    return QParams(
        scale=scale,
        zero_point=zero_point.to(torch.int32),
        quant_min=quant_min,
        quant_max=quant_max,
        dtype=target.dtype,
        scheme=target.scheme,
        block_size=None if is_whole else target.blocks.size,
    )


def quantize(tensor: Tensor, qparams: QParams) -> Tensor:
    """Return the quantized values: clamp(round(tensor / scale) + zero_point), ties to even.

    Args:
        tensor: any shape, float.
        qparams: how to quantize it.

    Returns:
        ``tensor``'s shape, in the smallest integer type that holds the range, or the float8 type.
    """
    if qparams.dtype in FLOAT8:
        scale, _ = _expanded(qparams, tensor.shape)
        scaled = (tensor.to(scale.dtype) / scale).clamp(qparams.quant_min, qparams.quant_max)
        return scaled.to(FLOAT8[qparams.dtype])
    return _levels(tensor, qparams).to(_storage(qparams))


def dequantize(quantized: Tensor, qparams: QParams) -> Tensor:
    """Return (quantized - zero_point) * scale.

    Args:
        quantized: any shape, as `quantize` returns it.
        qparams: how it was quantized.

    Returns:
        ``quantized``'s shape, the scale's dtype.
    """
    scale, zero_point = _expanded(qparams, quantized.shape)
    return (quantized.to(scale.dtype) - zero_point) * scale


def fake_quantize(tensor: Tensor, qparams: QParams, *, clip_gradient: bool = False) -> Tensor:
    """Quantize and dequantize, with a straight-through gradient.

    Args:
        tensor: any shape, float.
        qparams: how to quantize it.
        clip_gradient: pass no gradient where the value lies outside the range.

    Returns:
        ``tensor``'s shape and dtype.
    """
    result: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]  # torch has no types here
        tensor, qparams, clip_gradient
    )
    return result


class _FakeQuantize(torch.autograd.Function):
    # The identity in backward, with or without a mask of what was clamped.

    @staticmethod
    def forward(tensor: Tensor, qparams: QParams, clip_gradient: bool) -> Tensor:
        return dequantize(quantize(tensor, qparams), qparams).to(tensor.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, QParams, bool], output: Tensor) -> None:
        tensor, qparams, clip_gradient = inputs
        is_inside = None
        if clip_gradient:
            scale, zero_point = _expanded(qparams, tensor.shape)
            position = tensor.to(scale.dtype) / scale + zero_point
            is_inside = (position >= qparams.quant_min) & (position <= qparams.quant_max)
        ctx.save_for_backward(is_inside)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        (is_inside,) = ctx.saved_tensors
        return gradient if is_inside is None else gradient * is_inside, None, None


def check_range(low: Tensor, high: Tensor, name: str) -> None:
    """Refuse a range that nothing can be quantized with.

    Args:
        low: the smallest value of each block.
        high: the largest.
        name: the target's full name.

    Raises:
        CalibrationError: a range is empty or not finite.
    """
    is_usable = (low <= high) & low.isfinite() & high.isfinite()
    wrong = (~is_usable).flatten().nonzero().flatten()
    if len(wrong):
        index = int(wrong[0])
        raise CalibrationError(
            f"{name}: {len(wrong)} of its {low.numel()} observed ranges are unusable (the first "
            f"is {float(low.flatten()[index])} to {float(high.flatten()[index])}, at flat index "
            f"{index}); calibrate with data that reaches it, and check for NaN"
        )


def _levels(tensor: Tensor, qparams: QParams) -> Tensor:
    scale, zero_point = _expanded(qparams, tensor.shape)
    # In the scale's precision: half a step is beyond what a bfloat16 quotient resolves.
    levels = torch.round(tensor.to(scale.dtype) / scale).add_(zero_point)
    return levels.clamp_(qparams.quant_min, qparams.quant_max)


def _expanded(qparams: QParams, shape: torch.Size) -> tuple[Tensor, Tensor]:
    # Scale and zero point in a shape that broadcasts against the tensor.
    if qparams.block_size is None:
        return qparams.scale, qparams.zero_point
    return (
        expand_blocks(qparams.scale, qparams.block_size, shape),
        expand_blocks(qparams.zero_point, qparams.block_size, shape),
    )


def _storage(qparams: QParams) -> torch.dtype:
    for dtype in (torch.int8, torch.uint8, torch.int16):
        limits = torch.iinfo(dtype)
        if limits.min <= qparams.quant_min and qparams.quant_max <= limits.max:
            return dtype
    return torch.int32
