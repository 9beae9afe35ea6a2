"""Rounding column by column, in which remaining columns compensate for the error of each.

Everything here minimizes tr(D H D^T) for the error D of a matrix and the products H = X^T X of its
inputs.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

import tersely


@attrs.frozen(eq=False)
class Grid:
    """The values that each element of a matrix may take: integers times a scale.

    Attributes:
        scale: shape (rows, columns), weight units per step.
        low: the same shape, the smallest integer minus the zero point.
        high: the same shape, the largest integer minus the zero point.
    """

    scale: Tensor
    low: Tensor
    high: Tensor

    def nearest(self, values: Tensor) -> Tensor:
        """Return the nearest value of each element, ties to even."""
        levels = torch.div(values, self.scale).round_()
        return levels.clamp_(self.low, self.high).mul_(self.scale)


def grids_of(
    qparams: tersely.QParams, layout: tersely.Layout, shape: torch.Size, dtype: torch.dtype
) -> list[Grid]:
    """Return the grid of every matrix of a target.

    Args:
        qparams: scale and zero point of every block.
        layout: how the target is arranged as matrices.
        shape: the target's shape.
        dtype: of the matrices.
    """

    def matrices(values: Tensor) -> Tensor:
        if qparams.block_size is not None:
            values = tersely.expand_blocks(values, qparams.block_size, tuple(shape))
        return tersely.to_matrices(values.to(dtype).expand(shape), layout)

    lows = matrices(qparams.quant_min - qparams.zero_point)
    highs = matrices(qparams.quant_max - qparams.zero_point)
    return [Grid(*found) for found in zip(matrices(qparams.scale), lows, highs, strict=True)]


def round_columns(
    weight: Tensor, factor: Tensor, grid: Grid, *, order: Tensor, block: int
) -> Tensor:
    """Round a weight column by column, updating the remaining columns.

    Args:
        weight: shape (rows, columns), float; read only. Zeros stay zero: they may be masked.
        factor: the lower Cholesky factor of the inverse of H with its columns in ``order``, shape
            (columns, columns).
        grid: the values that each element may take.
        order: the columns, in the order in which they are rounded.
        block: the number of columns after which all remaining columns are updated.

    Returns:
        Values of the grid, shape (rows, columns).
    """
    # Transposed, because columns are read and written as a whole.
    values, scale, low, high = (
        part.T.index_select(0, order) for part in (weight, grid.scale, grid.low, grid.high)
    )
    kept = values != 0
    is_masked = not bool(kept.all())
    inverse = factor.diagonal().reciprocal().tolist()
    errors = values.new_empty(min(block, len(values)), values.shape[1])
    level = torch.empty_like(values[0])
    for start in range(0, len(values), block):
        stop = min(start + block, len(values))
        for at in range(start, stop):
            value = values[at]
            if at > start:
                value.addmv_(errors[: at - start].T, factor[at, start:at], alpha=-1)
            torch.div(value, scale[at], out=level).round_().clamp_(low[at], high[at])
            level *= scale[at]
            if is_masked:
                level *= kept[at]
            torch.sub(value, level, out=errors[at - start]).mul_(inverse[at])
            value.copy_(level)
        values[stop:].addmm_(factor[stop:, start:stop], errors[: stop - start], alpha=-1)
    rounded = torch.empty_like(weight, memory_format=torch.contiguous_format)
    rounded.T[order] = values
    return rounded
