"""Level tables: values that are rounded to the nearest entry of a table rather than to an integer.

With a scale ``s`` and levels ``l`` the integer of ``x`` is the index of the level nearest to
``x / s``, the lower one where two are equally near, and it is read as ``l[index] * s``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tersely.arithmetic.broadcasting import implied_size, interleaved_shape, lay_out
from tersely.arithmetic.levels import divide, precision

_FEWEST = 2


def levels_problem(levels: object, quant_min: int, quant_max: int) -> str | None:
    """Return why a table cannot be the levels of a quantized type, or None.

    Args:
        levels: what is said to be a table.
        quant_min: the smallest integer of the type.
        quant_max: the largest.
    """
    if not isinstance(levels, Tensor) or not levels.is_floating_point() or levels.ndim != 1:
        found = f"{list(levels.shape)}" if isinstance(levels, Tensor) else type(levels).__name__
        return f"levels are one row of floats, and these are {found}"
    if len(levels) < _FEWEST or not bool(levels.isfinite().all() and (levels.diff() > 0).all()):
        return "levels are two or more finite values, each above the one before it"
    bits = (len(levels) - 1).bit_length()
    if quant_min != 0 or len(levels) > quant_max + 1:
        return f"{len(levels)} levels are counted from 0; write quant_dtype: uint{bits} or wider"
    return None


def nearest_levels(position: Tensor, levels: Tensor) -> Tensor:
    """Return the index of the level nearest to each position.

    Args:
        position: any shape, float, values over their scale.
        levels: shape (levels,), ascending, of the same dtype.

    Returns:
        ``position``'s shape, int32; the lower of two levels that are equally near.
    """
    middles = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(position.contiguous(), middles, out_int32=True)


def fake_quantize_levels(
    value: Tensor,
    scale: Tensor,
    levels: Tensor,
    *,
    size: Sequence[int] | None = None,
    clip_gradient: bool = False,
) -> Tensor:
    """Take every value to the nearest level, with a straight-through gradient.

    Computed in float32, or float64 where the scale is; NaN stays NaN.

    Args:
        value: any shape, float.
        scale: shape (blocks along each dimension), or one that broadcasts against ``value``; float,
            positive, value units per unit of the table.
        levels: shape (levels,), ascending.
        size: elements per block, one integer per dimension, -1 = the whole dimension; None for
            what the shape of the scale implies.
        clip_gradient: pass no gradient where ``value / scale`` lies outside of the table.

    Returns:
        ``value``'s shape and dtype.

    Raises:
        ValueError: blocks do not divide the shape, or the scale does not have one value per block.
    """
    shape = inner = tuple(value.shape)
    if size is None:
        size = implied_size(scale.shape, shape)
    if size is not None:
        inner, scale = interleaved_shape(size, shape), lay_out(scale, size, shape)
    result: Tensor = _ToLevels.apply(  # type: ignore[no-untyped-call]  # torch has no types here
        value.view(inner), scale, levels.to(precision(scale)), clip_gradient
    )
    return result.view(shape)


class _ToLevels(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor, scale: Tensor, levels: Tensor, clip_gradient: bool) -> Tensor:
        position = divide(value, scale)
        found = levels[nearest_levels(position, levels)].mul_(scale.to(levels.dtype))
        # No level is near NaN, which must not hide.
        return torch.where(position.isnan(), position, found).to(value.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        value, scale, levels, ctx.clip_gradient = inputs
        if ctx.clip_gradient:
            ctx.save_for_backward(value, scale, levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if ctx.clip_gradient:
            value, scale, levels = ctx.saved_tensors
            position = divide(value, scale)
            is_inside = (position >= levels[0]) & (position <= levels[-1])
            gradient = gradient * is_inside
        return gradient, None, None, None
