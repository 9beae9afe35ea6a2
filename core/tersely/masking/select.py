"""Selection of the smallest values of large tensors, exactly and without sorting them.

A sorted sample brackets the value at which the ascending order is cut; one pass counts the values
below the bracket and gathers the few inside it, which are cut the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from tersely.masking.counting import as_array, chunks_of, count_equal, cut_between

SAMPLE = 1 << 16
"""Values drawn to place the bracket; more makes it narrower and its sorting dearer."""

SMALL = 1 << 19
"""Up to this many values are cut directly."""


@attrs.frozen
class Cut:
    """Where the ascending order of several tensors is cut.

    Attributes:
        value: everything below is taken; inf when everything is.
        ties: for each tensor how many of the elements equal to ``value`` are taken, lowest flat
            index first.
    """

    value: float
    ties: tuple[int, ...]


@attrs.frozen
class _Bracket:
    # lower and upper are indices into the sorted sample; -1 and its length stand for infinities.
    sample: Tensor
    lower: int
    upper: int

    @property
    def low(self) -> float:
        return float(self.sample[self.lower]) if self.lower >= 0 else -math.inf

    @property
    def high(self) -> float:
        return float(self.sample[self.upper]) if self.upper < len(self.sample) else math.inf


def cut_smallest(values: Sequence[Tensor], weights: Sequence[int], budget: int) -> Cut:
    """Find the longest ascending prefix whose weight stays within the budget.

    Equal values are ordered by tensor, then by flat index. The prefix ends at the first value that
    no longer fits.

    Args:
        values: flat tensors of one float dtype, finite.
        weights: what each value of a tensor weighs, one positive integer per tensor.
        budget: the weight not to be exceeded.

    Returns:
        The cut, for `is_above` to turn into masks.
    """
    total = sum(weight * value.numel() for value, weight in zip(values, weights, strict=True))
    if budget >= total:
        return Cut(math.inf, (0,) * len(values))
    if sum(value.numel() for value in values) <= SMALL:
        value = _cut_value(values, weights, budget)
        below = [int((tensor < value).count_nonzero()) for tensor in values]
        rest = budget - sum(n * weight for n, weight in zip(below, weights, strict=True))
        return Cut(value, _share_ties(values, weights, value, rest=rest))
    bracket = _bracket(values, weights, budget / total)
    while True:
        low, high = bracket.low, bracket.high
        cuts = [cut_between(tensor, low, high) for tensor in values]
        counts, inside = [count for count, _ in cuts], [part for _, part in cuts]
        rest = budget - sum(n * weight for n, weight in zip(counts, weights, strict=True))
        if rest < 0:
            bracket = _lower(bracket)
            continue
        inner = sum(part.numel() * weight for part, weight in zip(inside, weights, strict=True))
        if rest < inner:
            return cut_smallest(inside, weights, rest)
        ties = [count_equal(tensor, high) for tensor in values]
        if rest - inner < sum(n * weight for n, weight in zip(ties, weights, strict=True)):
            return Cut(high, _share_ties(values, weights, high, rest=rest - inner))
        bracket = _raise(bracket)


def is_above(value: Tensor, cut: float, ties: int, *, out: Tensor | None = None) -> Tensor:
    """Tell which elements a cut leaves.

    Args:
        value: flat, the tensor that was cut.
        cut: everything below is taken.
        ties: how many elements equal to ``cut`` are taken too, lowest flat index first.
        out: what to write to, bool or float, ``value`` itself included; None for a new bool tensor.

    Returns:
        ``value``'s shape, bool or 0 and 1, True = not taken.
    """
    above = torch.empty_like(value, dtype=torch.bool) if out is None else out
    for chunk, result in zip(chunks_of(value), chunks_of(above), strict=True):
        equal = count_equal(chunk, cut) if ties else 0
        some = None
        if equal > ties:
            # Looked up first: the result may take the place of the values.
            some = (chunk == cut).nonzero().flatten()[:ties]
        _compare(chunk, cut, result, is_strict=0 < equal <= ties)
        if some is not None:
            result[some] = 0
        ties -= min(equal, ties)
    return above


def _compare(chunk: Tensor, cut: float, result: Tensor, *, is_strict: bool) -> None:
    if result.dtype == chunk.dtype:
        (torch.gt if is_strict else torch.ge)(chunk, cut, out=result)
    elif result.is_cpu and result.dtype == torch.bool:
        (np.greater if is_strict else np.greater_equal)(as_array(chunk), cut, out=result.numpy())
    else:
        result.copy_(chunk > cut if is_strict else chunk >= cut)


def _cut_value(values: Sequence[Tensor], weights: Sequence[int], budget: int) -> float:
    # The smallest value v such that everything up to v weighs more than the budget.
    device = values[0].device
    everything = torch.cat([tensor.to(device) for tensor in values])
    if len(set(weights)) == 1:
        return float(everything.kthvalue(budget // weights[0] + 1).values)
    ordered, order = everything.sort()
    sizes = torch.tensor([len(tensor) for tensor in values], device=device)
    each = torch.tensor(weights, device=device).repeat_interleave(sizes)
    return float(ordered[(each[order].cumsum(0) <= budget).count_nonzero()])


def _share_ties(
    values: Sequence[Tensor], weights: Sequence[int], value: float, *, rest: int
) -> tuple[int, ...]:
    shares = [0] * len(values)
    for position, (tensor, weight) in enumerate(zip(values, weights, strict=True)):
        if rest < min(weights):
            break
        equal = count_equal(tensor, value)
        shares[position] = min(equal, rest // weight)
        if shares[position] < equal:
            break
        rest -= equal * weight
    return tuple(shares)


def _bracket(values: Sequence[Tensor], weights: Sequence[int], fraction: float) -> _Bracket:
    device = values[0].device
    # An odd step does not coincide with rows of even length.
    step = (sum(tensor.numel() for tensor in values) // SAMPLE) | 1
    parts = [tensor[::step].to(device) for tensor in values]
    sample, order = torch.cat(parts).sort()
    sizes = torch.tensor([len(part) for part in parts], device=device)
    each = torch.tensor(weights, device=device).repeat_interleave(sizes)
    cumulative = each[order].cumsum(0)
    middle = int((cumulative <= fraction * int(cumulative[-1])).count_nonzero())
    margin = _margin(sample)
    upper = min(middle + margin, len(sample))
    lower = _distinct_below(sample, max(middle - margin, -1), upper)
    return _Bracket(sample, lower, upper)


def _margin(sample: Tensor) -> int:
    # Four standard deviations of a sample quantile at its widest, the median.
    return 2 * math.isqrt(len(sample)) + 1


def _distinct_below(sample: Tensor, lower: int, upper: int) -> int:
    if upper >= len(sample) or lower < 0 or float(sample[lower]) < float(sample[upper]):
        return lower
    return int((sample < sample[upper]).count_nonzero()) - 1


def _lower(bracket: _Bracket) -> _Bracket:
    upper = bracket.lower
    lower = max(upper - 8 * _margin(bracket.sample), -1)
    return attrs.evolve(bracket, lower=_distinct_below(bracket.sample, lower, upper), upper=upper)


def _raise(bracket: _Bracket) -> _Bracket:
    count = len(bracket.sample)
    upper = min(bracket.upper + 8 * _margin(bracket.sample), count)
    if upper < count and float(bracket.sample[upper]) == bracket.high:
        upper = int((bracket.sample <= bracket.high).count_nonzero())
    return attrs.evolve(bracket, lower=bracket.upper, upper=upper)
