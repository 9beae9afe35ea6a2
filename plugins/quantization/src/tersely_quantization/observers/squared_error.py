"""The clipping range with the least squared error of quantization.

Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, ICCV workshop
2019 (minimum mean squared error), searched on a grid with the target's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

import tersely
from tersely_quantization.observers.histogram import Histogram

_COARSE = tuple(2 ** (-step / 8) for step in range(65))  # from 1 down to 1/256
_FINE = tuple(2 ** (step / 64) for step in range(-7, 8))
_ROOM = 2**21  # numbers processed at once

Errors: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Low and high of shape (blocks, ranges) -> sums of squared errors, the same shape, float64."""


def squared_error_range(
    histogram: Histogram, target: tersely.QuantizationTarget
) -> tuple[Tensor, Tensor]:
    """Return the observed range with zero, shrunk to the least squared error.

    First both ends are multiplied by factors from 1 down to 1/256, in steps of about 9 percent and
    then 1 percent; an affine range then tries the same at each end alone. A parameter's error is
    that of its values, an input's or output's that of the middles of its histogram's bins.

    Args:
        histogram: the observed values.
        target: the tensor to quantize.

    Returns:
        Low and high, each of shape (blocks,).
    """
    errors = _errors_of_tensor(target) or _errors_of_bins(histogram, target)
    ends = (histogram.low.clamp(max=0), histogram.high.clamp(min=0))
    ends = _shrunk(ends, errors, which=(0, 1))
    if target.scheme == "affine":
        ends = _shrunk(ends, errors, which=(0,))
        ends = _shrunk(ends, errors, which=(1,))
    return ends


def _shrunk(
    ends: tuple[Tensor, Tensor], errors: Errors, *, which: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    # The ends in ``which`` times each block's best factor; the first among equals.
    best = torch.ones_like(ends[0]).unsqueeze(1)
    for steps in (_COARSE, _FINE):
        factors = (best * torch.tensor(steps, dtype=best.dtype, device=best.device)).clamp(max=1)
        least = errors(*_scaled(ends, factors, which)).argmin(1, keepdim=True)
        best = factors.gather(1, least)
    low, high = _scaled(ends, best, which)
    return low.squeeze(1), high.squeeze(1)


def _scaled(
    ends: tuple[Tensor, Tensor], factors: Tensor, which: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    low, high = (
        end.unsqueeze(1) * (factors if place in which else torch.ones_like(factors))
        for place, end in enumerate(ends)
    )
    return low, high


def _errors_of_tensor(target: tersely.QuantizationTarget) -> Errors | None:
    if target.tensor is None:
        return None
    tensor = target.tensor.detach()
    values = tensor if tensor.dtype == torch.float64 else tensor.float()
    size = target.blocks.size
    counts = tersely.count_blocks(size, values.shape)

    def error(low: Tensor, high: Tensor) -> Tensor:
        qparams = tersely.choose_qparams(low.reshape(counts), high.reshape(counts), target)
        difference = tersely.fake_quantize(values, qparams) - values
        return tersely.sum_blocks(difference.square_(), size).double().reshape(-1)

    def errors(low: Tensor, high: Tensor) -> Tensor:
        return torch.stack([error(*one) for one in zip(low.T, high.T, strict=True)], 1)

    return errors


def _errors_of_bins(histogram: Histogram, target: tersely.QuantizationTarget) -> Errors:
    first, last = _filled(histogram.counts)
    weights = histogram.counts[:, first:last].double()
    half = histogram.counts.shape[1] // 2
    steps = torch.arange(first - half, last - half, device=weights.device)
    steps = steps + steps.sign() / 2
    # Middles of bins are clamped to the observed range: a tensor of one value has that value.
    lowest, highest = histogram.low.unsqueeze(1), histogram.high.unsqueeze(1)
    middles = (steps * histogram.width).to(lowest.dtype).clamp(lowest, highest)
    single = target.evolve(blocks=tersely.Blocks((1, 1, -1)))

    def errors(low: Tensor, high: Tensor) -> Tensor:
        rows = max(1, _ROOM // (low.shape[1] * middles.shape[1]))
        found = []
        for row in range(0, len(low), rows):
            some = slice(row, row + rows)
            qparams = tersely.choose_qparams(low[some, :, None], high[some, :, None], single)
            values = middles[some, None].expand(-1, low.shape[1], -1)
            difference = tersely.fake_quantize(values, qparams) - values
            found.append(torch.linalg.vecdot(difference.square_().double(), weights[some, None]))
        return torch.cat(found)

    return errors


def _filled(counts: Tensor) -> tuple[int, int]:
    # The run of bins outside of which all bins are empty.
    places = counts.any(0).nonzero().flatten()
    return int(places[0]), int(places[-1]) + 1
