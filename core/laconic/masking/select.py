"""Selection of the smallest values of large tensors, exactly and without sorting them.

A sorted sample brackets the value at which the ascending order is cut; one pass counts what lies
below the bracket and gathers the little that lies inside it; that is cut the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

SAMPLE = 1 << 16
"""Values drawn to place the bracket; more makes it narrower and its sorting dearer."""

SMALL = 1 << 19
"""Up to this many values are cut directly."""

CHUNK = 1 << 15
"""Values of a CPU tensor compared at a time.

Comparison results stay in cache, and torch runs an operation of this size on one thread: thousands
of small parallel ones are twice as fast on idle cores, and 30 times slower where cores are shared.
"""

ACCELERATOR_CHUNK = 1 << 24
"""Values of other tensors compared at a time; as many as float32 counts exactly."""


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
        counts, inside = _partition(values, low, high)
        rest = budget - sum(n * weight for n, weight in zip(counts, weights, strict=True))
        if rest < 0:
            bracket = _lower(bracket)
            continue
        inner = sum(part.numel() * weight for part, weight in zip(inside, weights, strict=True))
        if rest < inner:
            return cut_smallest(inside, weights, rest)
        ties = [_count_equal(tensor, high) for tensor in values]
        if rest - inner < sum(n * weight for n, weight in zip(ties, weights, strict=True)):
            return Cut(high, _share_ties(values, weights, high, rest=rest - inner))
        bracket = _raise(bracket)


def is_above(value: Tensor, cut: float, ties: int) -> Tensor:
    """Tell which elements a cut leaves.

    Args:
        value: flat, the tensor that was cut.
        cut: everything below is taken.
        ties: how many elements equal to ``cut`` are taken too, lowest flat index first.

    Returns:
        ``value``'s shape, bool, True = not taken.
    """
    above = torch.empty_like(value, dtype=torch.bool)
    chunks = _chunks(value)
    scratch = torch.empty_like(chunks[0])
    for chunk, result in zip(chunks, _chunks(above), strict=True):
        # By way of floats: only comparisons into their own dtype are vectorized.
        result.copy_(torch.ge(chunk, cut, out=scratch[: len(chunk)]))
        if ties:
            found = _count_equal(chunk, cut)
            if found <= ties:
                result.copy_(torch.gt(chunk, cut, out=scratch[: len(chunk)]))
            else:
                result[(chunk == cut).nonzero().flatten()[:ties]] = False
            ties -= min(found, ties)
    return above


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
        equal = _count_equal(tensor, value)
        shares[position] = min(equal, rest // weight)
        if shares[position] < equal:
            break
        rest -= equal * weight
    return tuple(shares)


def _bracket(values: Sequence[Tensor], weights: Sequence[int], fraction: float) -> _Bracket:
    device = values[0].device
    # An odd step does not fall in with rows of even length.
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


def _count_equal(tensor: Tensor, value: float) -> int:
    count = 0
    for chunk in _chunks(tensor):
        equal = torch.eq(chunk, value, out=torch.empty_like(chunk))
        count += int(equal.sum(dtype=torch.float32))
    return count


def _chunks(tensor: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tensor, CHUNK if tensor.is_cpu else ACCELERATOR_CHUNK)


def _partition(values: Sequence[Tensor], low: float, high: float) -> tuple[list[int], list[Tensor]]:
    # How many of each tensor are at most low, and those strictly between low and high.
    counts, inside = [], []
    for tensor in values:
        chunks = _chunks(tensor)
        at_most, below = torch.empty_like(chunks[0]), torch.empty_like(chunks[0])
        count, parts = 0, []
        for chunk in chunks:
            lower, inner = at_most[: len(chunk)], below[: len(chunk)]
            torch.le(chunk, low, out=lower)
            torch.lt(chunk, high, out=inner)
            count += int(lower.sum(dtype=torch.float32))
            parts.append(chunk[inner.sub_(lower).to(torch.bool)])
        counts.append(count)
        inside.append(torch.cat(parts))
    return counts, inside
