"""Histograms of observed values, whose bins merge exactly, and the observer that collects them.

Bins divide [-R, R] evenly, where R is the smallest power of two above all magnitudes of the block;
the two bins next to zero are one. When R doubles, pairs of neighbouring bins are merged.
Multiplication by powers of two is exact, so the counts depend neither on the order of values nor on
the process that observed them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

import tersely

BINS = 4096
SMALLEST_EXPONENT = -30
"""Smaller than any scale, so that smaller values need not be distinguished."""

_MOST_COUNTERS = 2**24  # 128 MiB of int64, whatever the number of blocks
_FEWEST_BINS = 16
_PIECE = 2**15  # elements whose indices stay in cache
_LARGE_PIECE = 2**24  # elements per kernel call on other devices
_LARGEST_SHIFT = 62

Statistics: TypeAlias = Mapping[str, Tensor]


@attrs.frozen(eq=False)
class Histogram:
    """Counts of values, one row for each block.

    Attributes:
        counts: shape (blocks, bins), int64; bin number bins / 2 + step counts the values whose
            quotient by the width, truncated towards zero, is ``step``.
        width: shape (blocks, 1), float64, value units per bin, a power of two.
        low: shape (blocks,), float, the smallest value seen.
        high: shape (blocks,), float, the largest value seen.
    """

    counts: Tensor
    width: Tensor
    low: Tensor
    high: Tensor

    @property
    def magnitudes(self) -> Tensor:
        """Counts of absolute values, shape (blocks, bins / 2), int64."""
        half = self.counts.shape[1] // 2
        negative = self.counts[:, 1:half].flip(1)
        return self.counts[:, half:] + torch.nn.functional.pad(negative, (1, 0))

    @property
    def largest(self) -> Tensor:
        """The largest magnitude of each block, shape (blocks,), float64."""
        return torch.maximum(-self.low, self.high).double()

    def within(self, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Return the observed range, clipped at a threshold.

        Args:
            threshold: shape (blocks,), float64, at least 0.

        Returns:
            Low and high, each of shape (blocks,).
        """
        limit = threshold.to(self.low.dtype)
        return torch.maximum(self.low, -limit), torch.minimum(self.high, limit)


Find: TypeAlias = Callable[[Histogram, tersely.QuantizationTarget], tuple[Tensor, Tensor]]
"""Finds low and high, each of shape (blocks,), in a histogram."""


class HistogramObserver:
    """Collects a histogram of each block and finds a range in it.

    Args:
        find: returns the range of a histogram.
        bins: the bins of a block, a power of two; fewer if there are many blocks.
    """

    def __init__(self, find: Find, *, bins: int = BINS) -> None:
        if bins < _FEWEST_BINS or bins & (bins - 1):
            raise ValueError(
                f"bins {bins}: expected a power of two, at least {_FEWEST_BINS}, so that "
                "neighbouring bins can merge"
            )
        self.find = find
        self.bins = bins

    def observe(self, values: Tensor, size: tuple[int, ...]) -> Statistics:
        """Return the histogram of one batch."""
        return count_values(values, size, self.bins)

    def merge(self, before: Statistics, batch: Statistics) -> Statistics:
        """Return the histogram of both."""
        return merge_counts(before, batch)

    def join(self, parts: Sequence[Statistics]) -> Statistics:
        """Return the histogram of all processes."""
        found = parts[0]
        for part in parts[1:]:
            found = merge_counts(found, part)
        return found

    def range(
        self, statistics: Statistics, target: tersely.QuantizationTarget
    ) -> tuple[Tensor, Tensor]:
        """Return the range of the histogram.

        Raises:
            CalibrationError: values that are NaN or infinite were observed.
        """
        shape = statistics["low"].shape
        low, high = self.find(read_histogram(statistics, target), target)
        return low.reshape(shape), high.reshape(shape)


def count_values(values: Tensor, size: Sequence[int], bins: int) -> Statistics:
    """Count the values of every block.

    Args:
        values: any shape, float, not empty; read only.
        size: elements per block, one integer per dimension, -1 = the whole dimension.
        bins: the bins of a block, a power of two; fewer are used if there are many blocks.

    Returns:
        Each of shape (blocks along each dimension): ``low`` and ``high``; ``exponent`` of R, int32;
        ``unusable``, the number of values that are NaN or infinite, int64. And ``counts``, int64,
        with bins as an additional dimension.
    """
    values = values if values.dtype == torch.float64 else values.float()
    low, high = tersely.block_range(values, size)
    unusable = torch.zeros_like(low, dtype=torch.int64)
    if not bool((low.isfinite() & high.isfinite()).all()):
        is_usable = values.isfinite()
        unusable = tersely.sum_blocks((~is_usable).long(), size)
        values = torch.where(is_usable, values, 0.0)
        low, high = tersely.block_range(values, size)
    # The minimum first: frexp of 0 returns 2^0.
    largest = torch.maximum(-low, high).clamp(min=2.0**SMALLEST_EXPONENT / 2)
    exponent = torch.frexp(largest).exponent
    bins = _affordable(bins, low.numel())
    per_unit = torch.exp2(_bits(bins) - exponent.double()).to(values.dtype).reshape(-1, 1)
    if 0 in size:  # numbered blocks, which may hold different numbers of elements
        counts = _counted_by_number(values, size, per_unit.flatten(), bins)
    else:
        counts = _counted(tersely.to_blocks(values, size).flatten(0, -2), per_unit, bins)
    return {
        "low": low,
        "high": high,
        "counts": counts.reshape(*low.shape, bins),
        "exponent": exponent.int(),
        "unusable": unusable,
    }


def merge_counts(one: Statistics, other: Statistics) -> Statistics:
    """Return the statistics of the values of both.

    Args:
        one: as `count_values` returns them.
        other: of the same blocks.
    """
    exponent = torch.maximum(one["exponent"], other["exponent"])
    counts = _coarsened(one, exponent) + _coarsened(other, exponent)
    return {
        "low": torch.minimum(one["low"], other["low"]),
        "high": torch.maximum(one["high"], other["high"]),
        "counts": counts,
        "exponent": exponent,
        "unusable": one["unusable"] + other["unusable"],
    }


def read_histogram(statistics: Statistics, target: tersely.QuantizationTarget) -> Histogram:
    """Return the histogram, with one row for each block.

    Args:
        statistics: as `count_values` returns them.
        target: the target whose values were counted.

    Raises:
        CalibrationError: values that are NaN or infinite were observed.
    """
    unusable = statistics["unusable"]
    if bool(unusable.any()):
        raise tersely.CalibrationError(
            f"{target.name}: {int(unusable.sum())} of the observed values are NaN or infinite, in "
            f"{int((unusable > 0).sum())} of its {unusable.numel()} blocks; find out which batch "
            "or layer produces them",
            **target.plan.place,
        )
    bins = statistics["counts"].shape[-1]
    exponent = statistics["exponent"].double().reshape(-1, 1)
    return Histogram(
        counts=statistics["counts"].reshape(-1, bins),
        width=torch.exp2(exponent - _bits(bins)),
        low=statistics["low"].reshape(-1),
        high=statistics["high"].reshape(-1),
    )


def _bits(bins: int) -> int:
    # A block's R is 2 ** _bits(bins) bins away from zero.
    return bins.bit_length() - 2


def _affordable(bins: int, blocks: int) -> int:
    while bins > _FEWEST_BINS and bins * blocks > _MOST_COUNTERS:
        bins //= 2
    return bins


def _counted(blocks: Tensor, per_unit: Tensor, bins: int) -> Tensor:
    # In pieces, so that intermediate results stay in cache.
    count, length = blocks.shape
    size = _PIECE if blocks.device.type == "cpu" else _LARGE_PIECE
    columns = min(length, size)
    rows = min(count, max(1, size // columns))
    counts = torch.zeros(count, bins, dtype=torch.int64, device=blocks.device)
    ones = torch.ones(rows * columns, dtype=torch.int64, device=blocks.device)
    zero = torch.arange(rows, device=blocks.device).mul_(bins).add_(bins // 2).int().unsqueeze(1)
    for row in range(0, count, rows):
        counted = counts[row : row + rows].view(-1)
        for column in range(0, length, columns):
            piece = blocks[row : row + rows, column : column + columns]
            place = (piece * per_unit[row : row + rows]).int().add_(zero[: len(piece)])
            counted.scatter_add_(0, place.flatten().long(), ones[: place.numel()])
    return counts


def _counted_by_number(values: Tensor, size: Sequence[int], per_unit: Tensor, bins: int) -> Tensor:
    count, shape = len(per_unit), tuple(values.shape)
    zero = torch.arange(count, device=values.device).mul_(bins).add_(bins // 2)
    place = (values * tersely.expand_blocks(per_unit, size, shape)).long()
    place += tersely.expand_blocks(zero, size, shape)
    return torch.bincount(place.flatten(), minlength=count * bins).reshape(count, bins)


def _coarsened(statistics: Statistics, exponent: Tensor) -> Tensor:
    # The counts with R = 2 ** exponent: a step is truncated towards zero once more.
    counts, shift = statistics["counts"], exponent - statistics["exponent"]
    if not bool(shift.any()):
        return counts
    half = counts.shape[-1] // 2
    steps = torch.arange(-half, half, device=counts.device)
    shift = shift.long().clamp(max=_LARGEST_SHIFT).unsqueeze(-1)
    return torch.zeros_like(counts).scatter_add_(
        -1, steps.sign() * (steps.abs() >> shift) + half, counts
    )
