"""An observer that adds the mean magnitude to the statistics of another observer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import tersely

SUM, COUNT = "magnitude_sum", "magnitude_count"


class WithMagnitudes:
    """Wraps another observer, and also collects the sum and the count of magnitudes.

    Args:
        inner: the other observer.
    """

    def __init__(self, inner: tersely.Observer) -> None:
        self.inner = inner

    def observe(self, values: Tensor, size: tuple[int, ...]) -> dict[str, Tensor]:
        """Return the other observer's statistics and the magnitudes of one batch."""
        total = tersely.reduce_blocks(values, size, _sum)
        if 0 in size:  # numbered blocks, which may hold different numbers of elements
            count = tersely.sum_blocks(torch.ones_like(values, dtype=torch.int64), size)
        else:
            each = values.numel() // max(total.numel(), 1)
            count = torch.full_like(total, each, dtype=torch.int64)
        return {**self.inner.observe(values, size), SUM: total, COUNT: count}

    def merge(self, before: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the statistics after one more batch."""
        return {**self.inner.merge(before, batch), **_added([before, batch])}

    def join(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the statistics of all processes."""
        return {**self.inner.join(parts), **_added(parts)}

    def range(
        self, statistics: Mapping[str, Tensor], target: tersely.QuantizationTarget
    ) -> tuple[Tensor, Tensor]:
        """Return the other observer's range."""
        return self.inner.range(statistics, target)


def mean_magnitude(target: tersely.QuantizationTarget) -> Tensor:
    """Return the mean of the absolute values of every block.

    Args:
        target: the target: a parameter with its tensor, an input or output with statistics.

    Returns:
        Shape (blocks along each dimension), float.

    Raises:
        CalibrationError: no values of an input or output were observed.
    """
    if target.tensor is not None:
        return tersely.reduce_blocks(target.tensor.detach(), target.blocks.size, _mean)
    if SUM not in target.statistics:
        raise tersely.CalibrationError(
            f"{target.name}: its values were not observed; call session.calibrate before "
            "session.compress",
            **target.plan.place,
        )
    return target.statistics[SUM] / target.statistics[COUNT]


def _sum(blocks: Tensor, dim: int) -> Tensor:
    return blocks.abs().sum(dim, dtype=torch.float64)


def _mean(blocks: Tensor, dim: int) -> Tensor:
    return blocks.abs().mean(dim, dtype=torch.float64)


def _added(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).sum(0) for name in (SUM, COUNT)}
