"""Level tables: values that are rounded to the nearest entry of a table rather than to an integer.

With a scale ``s`` and levels ``l`` the integer of ``x`` is the index of the level nearest to
``x / s``, the lower one where two are equally near, and it is read as ``l[index] * s``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tersely.arithmetic.levels import divide

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
        return f"levels must be a 1-dim tensor of floats, found {found}"
    if len(levels) < _FEWEST or not bool(levels.isfinite().all() and (levels.diff() > 0).all()):
        return "levels must be two or more finite values in ascending order"
    bits = (len(levels) - 1).bit_length()
    if quant_min != 0 or len(levels) > quant_max + 1:
        return f"{len(levels)} levels have indices from 0; write quant_dtype: uint{bits} or wider"
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


def nearest_values(value: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """Return the level nearest to each value, times its scale; NaN stays NaN.

    Args:
        value: any shape, float.
        scale: a shape that broadcasts against ``value``; float, positive, value units per unit of
            the table.
        levels: shape (levels,), ascending, in the precision to compute in.

    Returns:
        ``value``'s shape and dtype.
    """
    position = divide(value, scale)
    found = levels[nearest_levels(position, levels)].mul_(scale.to(levels.dtype))
    # No level is near NaN, which must not hide.
    return torch.where(position.isnan(), position, found).to(value.dtype)


def padded(levels: Tensor, count: int) -> Tensor:
    """Return a table as long as every table of its type, so that averages of models fit.

    Args:
        levels: shape (levels,), ascending.
        count: how many values the type has, at least as many as there are levels.

    Returns:
        Shape (count,); the last level is repeated.
    """
    return torch.cat([levels, levels[-1:].expand(count - len(levels))])


def without_padding(levels: Tensor) -> Tensor:
    """Return the levels of a table that `padded` made longer.

    Args:
        levels: shape (count,), ascending but for what is repeated at its end.
    """
    if torch.compiler.is_compiling():
        return levels  # a repeated level is one that no value is nearest to
    return levels[: 1 + int((levels.diff() > 0).sum())]
