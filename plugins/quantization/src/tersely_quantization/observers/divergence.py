"""The clipping threshold with the least divergence between original and quantized values.

Migacz, 8-bit Inference with TensorRT, GPU Technology Conference 2017: of all thresholds take the
one with the smallest Kullback-Leibler divergence between the clipped histogram of magnitudes and
the same histogram after quantization.
"""

from __future__ import annotations

import torch
from torch import Tensor

import tersely
from tersely_quantization.observers.histogram import Histogram

_MOST_CANDIDATES = 512
_ROOM = 2**21  # numbers processed at once
_SMOOTH = 1e-4  # counts of a bin that is empty in the quantized histogram
_EQUAL = 1e-9  # nats, below the precision of sums of a million counts


def divergence_range(
    histogram: Histogram, target: tersely.QuantizationTarget
) -> tuple[Tensor, Tensor]:
    """Return the observed range, clipped where the divergence is smallest.

    Departs from the slides: at most 512 thresholds are compared; zero, which every scale
    represents, counts no more than its neighbours (otherwise sparse tensors would be clipped
    needlessly); values clipped onto a bin that is empty in the quantized histogram get a small
    probability instead of zero, which would exclude the threshold; no threshold clips more than
    half of the values; among equally good thresholds, the whole range or else the smallest is
    taken; a tensor of one sign with the affine scheme has all levels on that side.

    Args:
        histogram: what was observed.
        target: the tensor to quantize.

    Returns:
        Low and high, each of shape (blocks,).
    """
    levels = target.quant_max - target.quant_min
    is_one_sided = (histogram.low >= 0) | (histogram.high <= 0)
    if target.scheme == "symmetric":
        is_one_sided = torch.zeros_like(is_one_sided)
    counts = histogram.magnitudes.double()
    counts[:, 0] = torch.minimum(counts[:, 0], counts[:, 1])
    largest, width = histogram.largest, histogram.width[:, 0]
    used = (largest / width).floor().long().add(1).clamp(max=counts.shape[1])
    threshold = largest.clone()
    for chosen, available in ((~is_one_sided, levels // 2 + 1), (is_one_sided, levels + 1)):
        rows = chosen.nonzero().flatten()
        each = max(1, _ROOM // (_MOST_CANDIDATES * available))
        for first in range(0, len(rows), each):
            some = rows[first : first + each]
            kept = least_divergent(counts[some], used[some], available)
            clipped = (kept + 0.5) * width[some]
            threshold[some] = torch.where(kept < used[some], clipped, largest[some])
    return histogram.within(torch.minimum(threshold, largest))


def least_divergent(counts: Tensor, used: Tensor, levels: int) -> Tensor:
    """Return the number of bins to keep of each histogram.

    Args:
        counts: shape (blocks, bins), float64, counts of magnitudes.
        used: shape (blocks,), int64, the number of bins up to the last that is not empty.
        levels: quantized values for the kept bins.

    Returns:
        Shape (blocks,), int64, from ``levels`` to ``used``; ``used`` where that is not larger.
    """
    bins = counts.shape[1]
    if levels >= bins:
        return used
    stride = max(1, bins // _MOST_CANDIDATES)
    kept = torch.arange(levels, bins + stride, stride, device=counts.device)
    kept = torch.minimum(kept, used.unsqueeze(1))
    found = _divergences(counts, kept, levels)
    is_best = found <= found.amin(1, keepdim=True) + _EQUAL
    is_whole = kept == used.unsqueeze(1)
    best = (is_best.int() + (is_best & is_whole).int()).argmax(1)
    return kept.gather(1, best.unsqueeze(1)).squeeze(1)


def _divergences(counts: Tensor, kept: Tensor, levels: int) -> Tensor:
    # KL(P || Q) of shape (blocks, candidates). P: the first ``kept`` bins, the rest added to the
    # last of them. Q: the same bins without the rest in ``levels`` runs, each run's sum shared by
    # those of its bins that P does not have empty. Sums over bins are differences of cumulative
    # sums at the ends of runs.
    total = counts.sum(1, keepdim=True)
    sums, filled = _cumulative(counts), _cumulative((counts > 0).double())
    inside = sums.gather(1, kept)
    outside = total - inside
    last = counts.gather(1, (kept - 1).clamp(min=0))
    run = torch.arange(levels, device=counts.device)
    ends = torch.cat([(kept // levels).unsqueeze(-1) * run, kept.unsqueeze(-1)], -1)
    run_sums = _at(sums, ends).diff(dim=-1)
    run_filled = _at(filled, ends).diff(dim=-1)
    run_filled[..., -1] += ((outside > 0) & (last == 0)).double()
    # A run is empty in Q but not in P only if all of its counts are clipped ones.
    smoothed = torch.where(run_sums > 0, run_sums, _SMOOTH)
    shared = torch.log(smoothed / run_filled.clamp(min=1))
    reference = run_sums
    reference[..., -1] += outside
    own = _cumulative(torch.special.xlogy(counts, counts)).gather(1, kept)
    own += torch.special.xlogy(last + outside, last + outside) - torch.special.xlogy(last, last)
    found = (own - (reference * shared).sum(-1)) / total - total.log() + inside.log()
    # If all kept counts share a run with all clipped ones, both histograms are a single spike.
    return found.masked_fill((inside * 2 < total) | (inside == 0) | found.isnan(), torch.inf)


def _cumulative(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values.cumsum(1), (1, 0))


def _at(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index.flatten(1)).view(index.shape)
