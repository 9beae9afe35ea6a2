"""The smallest and the largest value of every block, and the observer that keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from tersely.arithmetic.blocks import is_broadcastable, resolve_size
from tersely.arithmetic.grid import QuantizedGrid
from tersely.arithmetic.levels import is_cut
from tersely.arithmetic.numbered import Numbering

Statistics: TypeAlias = Mapping[str, Tensor]
"""What an observer knows of the values it saw, in tensors that can be saved."""

_LARGEST_RUN = 2**19
"""Elements that are read at a time: few enough to be in a cache when they are read again."""


def block_range(values: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of every block.

    Args:
        values: any shape, float, not empty; read only.
        size: elements per block, one integer per dimension, -1 = the whole dimension.

    Returns:
        Low and high, each of shape (blocks along each dimension), the values' dtype; NaN where a
        block has NaN.

    Raises:
        ValueError: blocks do not divide the shape.
    """
    resolved = resolve_size(size, values.shape)
    if isinstance(resolved, Numbering):
        return resolved.range(values)
    counts = tuple(length // one for one, length in zip(resolved, values.shape, strict=True))
    if all(count == 1 for count in counts):
        # One pass over both ends is twice as fast as two, unless the values are not contiguous.
        is_dense = values.is_contiguous()
        low, high = torch.aminmax(values) if is_dense else (values.amin(), values.amax())
        return low.reshape(counts), high.reshape(counts)
    if all(one == 1 for one in resolved):
        return values, values
    split = [part for pair in zip(counts, resolved, strict=True) for part in pair]
    inner = [2 * dim + 1 for dim, one in enumerate(resolved) if one != 1]
    # Small blocks along several dimensions: one dimension after the other, as the first then
    # compares whole rows, five times as fast.
    stages = [inner] if is_broadcastable(size, values.shape) else [[dim] for dim in inner]
    view = values.view(split)
    run = max(1, _LARGEST_RUN * counts[0] // values.numel()) if is_cut(values) else counts[0]
    starts = range(0, counts[0], run)
    ends = [_ends(view.narrow(0, at, min(run, counts[0] - at)), stages) for at in starts]
    low, high = ends[0] if len(ends) == 1 else map(torch.cat, zip(*ends, strict=True))
    return low.reshape(counts), high.reshape(counts)


def data_range(values: Tensor, is_data: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest of every block's values that are data.

    Args:
        values: any shape, float, not empty; read only.
        is_data: bool, as many dimensions as ``values``, and broadcasts to its shape.
        size: elements per block, one integer per dimension, -1 = the whole dimension.

    Returns:
        Low and high, each of shape (blocks along each dimension), the values' dtype; infinity and
        minus infinity where a block has no data, NaN where its data has NaN.

    Raises:
        ValueError: blocks do not divide the shape.
    """
    resolved = resolve_size(size, values.shape)
    low = high = values
    if not isinstance(resolved, Numbering) and resolved == tuple(values.shape):
        # Whatever a mark of one position stands for comes first, which leaves little to mark.
        lengths = zip(is_data.shape, values.shape, strict=True)
        dims = [dim for dim, (marks, length) in enumerate(lengths) if marks != length]
        if dims:
            low, high = values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)
        size = (-1,) * values.ndim
    low = torch.where(is_data, low, torch.inf)
    high = torch.where(is_data, high, -torch.inf)
    return block_range(low, size)[0], block_range(high, size)[1]


def are_finite(low: Tensor, high: Tensor) -> bool:
    """Tell whether all ranges are finite.

    Args:
        low: shape (blocks along each dimension), float.
        high: ``low``'s shape.
    """
    # Whatever is not finite makes this sum NaN or infinite, with three operators in place of
    # eleven. Ends that are far apart may, too, so only a finite sum decides.
    is_certain = math.isfinite((high - low).sum().item())
    return is_certain or bool((low.isfinite() & high.isfinite()).all())


def _ends(values: Tensor, stages: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    low = high = values
    for dims in stages:
        low, high = low.amin(dims, keepdim=True), high.amax(dims, keepdim=True)
    return low, high


class MinMax:
    """Keeps the smallest and the largest value that was seen (rule Q5)."""

    def observe(self, values: Tensor, size: tuple[int, ...]) -> Statistics:
        """Return the range of one batch."""
        low, high = block_range(values, size)
        return {"low": low, "high": high}

    def merge(self, before: Statistics, batch: Statistics) -> Statistics:
        """Return the range that holds both."""
        return {
            "low": torch.minimum(before["low"], batch["low"]),
            "high": torch.maximum(before["high"], batch["high"]),
        }

    def join(self, parts: Sequence[Statistics]) -> Statistics:
        """Return the range that holds those of all processes."""
        found = parts[0]
        for part in parts[1:]:
            found = self.merge(found, part)
        return found

    def range(self, statistics: Statistics, target: QuantizedGrid) -> tuple[Tensor, Tensor]:
        """Return the range itself."""
        return statistics["low"], statistics["high"]
