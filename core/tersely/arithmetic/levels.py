"""Levels: what a value becomes on the grid of its scale, computed in place and piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tersely.arithmetic.pieces import piece, pieces

_LARGEST_PIECE = 2**19
"""Elements worked on at a time: few enough to stay in a cache from one operation to the next."""

_FEWEST_PIECES = 4
"""Fewer are not worth cutting for: a cache of the last level holds them all."""

_LARGEST_PIECE_ON_A_DEVICE = 2**24
"""The same where starting an operation costs more than reading from memory."""


class Limits(NamedTuple):
    """The levels of a quantized type; a tuple, because torch.compile can make no attrs class.

    Attributes:
        quant_min: the smallest.
        quant_max: the largest.
        float8: the float8 type that stores them and whose cast rounds; None for integers.
        is_zero_first: whether the zero point is added before rounding because it is not an integer.
    """

    quant_min: int
    quant_max: int
    float8: torch.dtype | None = None
    is_zero_first: bool = False


def precision(scale: Tensor) -> torch.dtype:
    """Return the type to compute in: half a step is beyond what a half-precision quotient resolves.

    Args:
        scale: any shape, float.
    """
    return torch.float64 if scale.dtype == torch.float64 else torch.float32


def with_rank(values: Tensor, rank: int) -> Tensor:
    """Return a view that broadcasts the same way and has at least as many dimensions.

    Args:
        values: any shape.
        rank: the number of dimensions.
    """
    return values.view((1,) * (rank - values.ndim) + values.shape)


def divide(value: Tensor, scale: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return ``value / scale`` in the precision to compute in, as a tensor of its own.

    Args:
        value: any shape, float.
        scale: a shape that broadcasts against it, float.
        out: where to write it, of ``value``'s shape; may be ``value`` itself.
    """
    dtype = precision(scale)
    if value.dtype == dtype:
        return torch.div(value, scale.to(dtype), out=out)
    wider = value.to(dtype) if out is None else out.copy_(value)
    return wider.div_(scale.to(dtype))


def to_levels_(quotient: Tensor, zero_point: Tensor | None, limits: Limits) -> Tensor:
    """Take ``value / scale`` to what will be stored, in place: round, add the zero point, clamp.

    A zero point that is not an integer is added before rounding.

    Args:
        quotient: any shape, as `divide` returns it.
        zero_point: a shape that broadcasts against it, or None.
        limits: the levels there are.
    """
    if limits.is_zero_first and zero_point is not None:
        return quotient.add_(zero_point).round_().clamp_(limits.quant_min, limits.quant_max)
    if limits.float8 is None:
        quotient.round_()
    if zero_point is not None:
        quotient.add_(zero_point)
    return quotient.clamp_(limits.quant_min, limits.quant_max)


def to_values_(levels: Tensor, scale: Tensor, zero_point: Tensor | None, limits: Limits) -> Tensor:
    """Take what `to_levels_` returned back to values, in place.

    Args:
        levels: any shape.
        scale: a shape that broadcasts against it, float.
        zero_point: as in `to_levels_`.
        limits: as in `to_levels_`.
    """
    if limits.float8 is not None:
        levels.copy_(levels.to(limits.float8))
    if zero_point is not None:
        levels.sub_(zero_point)
    return levels.mul_(scale)


def is_cut(value: Tensor) -> bool:
    """Tell whether a tensor is worth cutting into pieces, which no compiler should see.

    Args:
        value: any shape.
    """
    if torch.compiler.is_compiling():
        return False
    return value.device.type == "cpu" and value.numel() > _FEWEST_PIECES * _LARGEST_PIECE


def levels_by_piece(
    value: Tensor, scale: Tensor, zero_point: Tensor | None, limits: Limits, *, into: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield what will be stored, piece by piece; apart from ``into``, little is allocated.

    Args:
        value: any shape, float.
        scale: a shape that broadcasts against it, in as many dimensions; float.
        zero_point: scale's shape, or None.
        limits: the levels there are.
        into: ``value``'s shape, for what the caller makes of the levels; may be ``value`` itself.
            Where it has the precision to compute in, the levels are in it already.

    Yields:
        The piece's view of ``into``, its levels (overwritten for the next one), its scale and its
        zero point.
    """
    is_on_cpu = value.device.type == "cpu"
    largest = _LARGEST_PIECE if is_on_cpu else _LARGEST_PIECE_ON_A_DEVICE
    dtype = precision(scale)
    has_room = into.dtype == dtype
    scratch = into if has_room else into.new_empty(min(largest, value.numel()), dtype=dtype)
    for index in pieces(value.shape, largest=largest):
        part, target, scales = piece(value, index), piece(into, index), piece(scale, index)
        zero_points = None if zero_point is None else piece(zero_point, index)
        out = target if has_room else scratch[: part.numel()].view(part.shape)
        levels = to_levels_(divide(part, scales, out=out), zero_points, limits)
        yield target, levels, scales, zero_points


def simulate(
    value: Tensor, scale: Tensor, zero_point: Tensor | None, limits: Limits, *, into: Tensor
) -> None:
    """Quantize and dequantize piece by piece, without a gradient.

    Args:
        value: as in `levels_by_piece`.
        scale: as there.
        zero_point: as there.
        limits: as there.
        into: where the values go; may be ``value`` itself.
    """
    found = levels_by_piece(value, scale, zero_point, limits, into=into)
    for target, levels, scales, zero_points in found:
        to_values_(levels, scales, zero_points, limits)
        if levels is not target:
            target.copy_(levels)
