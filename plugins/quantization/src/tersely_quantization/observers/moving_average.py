"""An observer of moving averages of the range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import tersely

DECAY = 0.99


class MovingAverage:
    """Averages the smallest and the largest value of batches, starting from the first batch.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3.1. The order of batches matters;
    processes have equal weights.

    Args:
        decay: the weight of the old range, in [0, 1).
    """

    def __init__(self, *, decay: float = DECAY) -> None:
        self.decay = decay

    def observe(self, values: Tensor, size: tuple[int, ...]) -> dict[str, Tensor]:
        """Return the range of one batch."""
        low, high = tersely.block_range(values, size)
        return {"low": low, "high": high}

    def merge(self, before: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return decay * before + (1 - decay) * batch."""
        return {
            end: self.decay * before[end] + (1 - self.decay) * batch[end] for end in ("low", "high")
        }

    def join(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the mean over processes."""
        return {end: torch.stack([part[end] for part in parts]).mean(0) for end in ("low", "high")}

    def range(
        self, statistics: Mapping[str, Tensor], target: tersely.QuantizationTarget
    ) -> tuple[Tensor, Tensor]:
        """Return the average range."""
        return statistics["low"], statistics["high"]
