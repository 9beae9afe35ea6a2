"""The clipping range with which quantizing makes the smallest squared error.

Choukroun et al., Low-bit Quantization of Neural Networks for Efficient Inference, ICCV workshop
2019 (minimum mean squared error), searched on a grid with the target's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

import laconic
from laconic_quantization.histogram import Histogram

_COARSE = tuple(2 ** (-step / 8) for step in range(65))  # from 1 down to 1/256
_FINE = tuple(2 ** (step / 64) for step in range(-7, 8) if step)

Errors: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Low and high of shape (blocks,) -> the sum of squared errors, shape (blocks,), float64."""


def squared_error_range(
    histogram: Histogram, target: laconic.QuantizationTarget
) -> tuple[Tensor, Tensor]:
    """Return the observed range, shrunk to where the squared error is smallest.

    First both ends are multiplied by factors from 1 down to 1/256, in steps of about 9 percent and
    then 1 percent; an affine range then tries the same at each end alone. A parameter's error is
    that of its values, an input's or output's that of the middles of its histogram's bins.

    Args:
        histogram: what was observed.
        target: the tensor to quantize.

    Returns:
        Low and high, each of shape (blocks,).
    """
    errors = _errors_of_tensor(target) or _errors_of_bins(histogram, target)
    ends = (histogram.low, histogram.high)
    ends, least = _shrunk(ends, errors(*ends), errors, which=(0, 1))
    if target.scheme == "affine":
        ends, least = _shrunk(ends, least, errors, which=(0,))
        ends, least = _shrunk(ends, least, errors, which=(1,))
    return ends


def _shrunk(
    ends: tuple[Tensor, Tensor], least: Tensor, errors: Errors, *, which: tuple[int, ...]
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    # The best factor of each block for the ends in ``which``, and the error that it leaves.
    best = torch.ones_like(least)
    for factors in (_COARSE, _FINE):
        middle = best
        for step in factors:
            factor = (middle * step).clamp(max=1)
            tried = errors(*_scaled(ends, factor, which))
            is_better = tried < least
            best, least = torch.where(is_better, factor, best), torch.where(is_better, tried, least)
    return _scaled(ends, best, which), least


def _scaled(
    ends: tuple[Tensor, Tensor], factor: Tensor, which: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    low, high = (
        end * factor.to(end.dtype) if place in which else end for place, end in enumerate(ends)
    )
    return low, high


def _errors_of_tensor(target: laconic.QuantizationTarget) -> Errors | None:
    tensor = target.tensor
    if tensor is None:
        return None
    values = tensor.detach() if tensor.dtype == torch.float64 else tensor.detach().float()
    size = target.blocks.size
    counts = laconic.count_blocks(size, values.shape)

    def errors(low: Tensor, high: Tensor) -> Tensor:
        qparams = laconic.choose_qparams(low.reshape(counts), high.reshape(counts), target)
        error = laconic.fake_quantize(values, qparams) - values
        return laconic.sum_blocks(error.square_(), size).double().reshape(-1)

    return errors


def _errors_of_bins(histogram: Histogram, target: laconic.QuantizationTarget) -> Errors:
    first, last = _filled(histogram.counts)
    weights = histogram.counts[:, first:last].double()
    half = histogram.counts.shape[1] // 2
    steps = torch.arange(first - half, last - half, device=weights.device) + 0.5
    # No bin's middle lies beyond what was seen: a tensor of one value is that value.
    low, high = histogram.low.unsqueeze(1), histogram.high.unsqueeze(1)
    middles = (steps * histogram.width).to(low.dtype).clamp(low, high)

    def errors(low: Tensor, high: Tensor) -> Tensor:
        chosen = laconic.choose_qparams(low, high, target)
        qparams = chosen.evolve(
            scale=chosen.scale.reshape(-1, 1),
            zero_point=chosen.zero_point.reshape(-1, 1),
            block_size=(1, -1),
        )
        error = laconic.fake_quantize(middles, qparams) - middles
        return (error.square_().double() * weights).sum(1)

    return errors


def _filled(counts: Tensor) -> tuple[int, int]:
    # The run of bins outside of which all are empty.
    places = counts.any(0).nonzero().flatten()
    if not len(places):
        return 0, counts.shape[1]
    return int(places[0]), int(places[-1]) + 1
