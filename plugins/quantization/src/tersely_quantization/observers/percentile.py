"""The range that contains a given share of the values, excluding outliers.

McKinstry et al., Discovering Low-Precision Networks Close to Full-Precision Networks for Efficient
Inference, NeurIPS workshop 2019, which calibrates activations with such a share.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

import tersely
from tersely_quantization.observers.histogram import Histogram

SHARE = 0.9999
_LARGEST_DENOMINATOR = 10**8  # fits into int64 when multiplied by a count of values


def percentile_range(
    histogram: Histogram, target: tersely.QuantizationTarget, *, percentile: float = SHARE
) -> tuple[Tensor, Tensor]:
    """Return the smallest range of whole bins that contains a share of the values.

    Symmetric: up to floor((1 - percentile) * count) of the largest magnitudes are left out. Affine:
    half as many at each end.

    Args:
        histogram: the observed values.
        target: the tensor to quantize.
        percentile: the share that the range must contain, above 0 and up to 1.

    Returns:
        Low and high, each of shape (blocks,).
    """
    counts = histogram.counts
    # Of the decimal number: 0.9 keeps nine of ten, although 1 - 0.9 is below 0.1 in binary.
    outside = 1 - Fraction(str(percentile)).limit_denominator(_LARGEST_DENOMINATOR)
    allowed = counts.sum(1) * outside.numerator // outside.denominator
    if target.scheme == "symmetric":
        return histogram.within(_kept_bins(histogram.magnitudes, allowed) * histogram.width[:, 0])
    half = counts.shape[1] // 2
    last = _kept_bins(counts, allowed // 2) - 1 - half
    first = half - _kept_bins(counts.flip(1), allowed // 2)
    # Seen from zero, a bin is beyond its step; that of step 0 is on both sides.
    above = torch.where(last < 0, last, last + 1) * histogram.width[:, 0]
    below = torch.where(first > 0, first, first - 1) * histogram.width[:, 0]
    low, high = histogram.low, histogram.high
    return low.maximum(below.to(low.dtype)), high.minimum(above.to(high.dtype))


def _kept_bins(counts: Tensor, allowed: Tensor) -> Tensor:
    # The number of leading bins with at most ``allowed`` values after them; shape (blocks,).
    behind = counts.flip(1).cumsum(1)
    return counts.shape[1] - (behind <= allowed.unsqueeze(1)).sum(1)
