"""The scale that most algorithms take: the range of a target, mapped onto its integers."""

from __future__ import annotations

from torch import Tensor

import tersely


class MapsRange:
    """Maps a range onto the integers as the specification does (rules Q2)."""

    def choose(
        self, low: Tensor, high: Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        """Return scale and zero point for a range.

        Args:
            low: shape (blocks along each dimension), float, the smallest value seen.
            high: the same shape, the largest value seen.
            target: the tensor to quantize.
        """
        return tersely.choose_qparams(low, high, target)
