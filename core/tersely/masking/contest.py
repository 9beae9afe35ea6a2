"""Global groups: units enter a contest for one budget of masked elements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import attrs
import torch
from torch import Tensor

from tersely.masking.budgets import count_masked
from tersely.masking.member import Ratio
from tersely.masking.rows import keep_highest
from tersely.masking.select import cut_smallest, is_above
from tersely.masking.uneven import count_in_contest, count_within
from tersely.masking.units import Unit


@attrs.frozen(kw_only=True, eq=False)
class Competitor:
    """One unit's decisions in the contest: forced and barred ones do not compete.

    Attributes:
        values: shape (decisions,), float.
        weight: elements that one decision masks, where all mask equally many.
        weights: elements that each masks where that differs, shape (decisions,), int64.
        forced: how many decisions the minimum masks before anything competes.
        competing: shape (decisions,), bool; None = all compete.
    """

    values: Tensor
    weight: int
    forced: int
    competing: Tensor | None
    weights: Tensor | None = None

    @property
    def forced_elements(self) -> int:
        """Elements of the decisions that the minimum masks."""
        if self.weights is None:
            return self.forced * self.weight
        return int(self.weights[self.values.argsort(stable=True)][: self.forced].sum())

    @property
    def free_weights(self) -> Tensor:
        """Elements of each decision that competes, shape (free,), int64."""
        if self.weights is None:
            return torch.full_like(self.free, self.weight, dtype=torch.int64)
        return self.weights if self.competing is None else self.weights[self.competing]

    @property
    def free(self) -> Tensor:
        """The values of the decisions that compete."""
        return self.values if self.competing is None else self.values[self.competing]


def enter(units: Sequence[Unit]) -> list[Competitor]:
    """Return the units of a global group as competitors, their values in one dtype.

    A unit whose ratio is met in every row competes with the mean of its rows' i-th lowest blocks,
    taken together.

    Args:
        units: the units of one group.
    """
    dtype = reduce(torch.promote_types, (unit.rows.dtype for unit in units))
    return [_enter(unit, dtype) for unit in units]


def _enter(unit: Unit, dtype: torch.dtype) -> Competitor:
    rows, total = len(unit.rows), unit.rows.shape[1]
    weights = unit.weights
    if rows == 1:
        values = unit.rows[0]
        weights = None if weights is None else weights[0]
    else:
        ordered = unit.rows.sort(dim=1, stable=weights is not None)
        values = ordered.values.mean(0)
        weights = None if weights is None else weights.gather(1, ordered.indices).sum(0)
    values = values.to(dtype)
    lowest = _count(unit.minimum, values, weights)
    highest = max(_count(unit.maximum, values, weights), lowest)
    competing = None
    if lowest or highest < total:
        below_highest = ~keep_highest(values[None], highest)[0]
        competing = keep_highest(values[None], lowest)[0].logical_and_(below_highest)
    return Competitor(
        values=values,
        weight=unit.weight * rows,
        weights=weights,
        forced=lowest,
        competing=competing,
    )


def _count(ratio: Ratio, values: Tensor, weights: Tensor | None) -> int:
    if weights is None:
        return count_masked(ratio, len(values))
    return count_within(values, weights, count_masked(ratio, int(weights.sum())))


def share_budget(units: Sequence[Unit]) -> list[Tensor]:
    """Mask the lowest importances of a whole global group within one budget of elements.

    What a unit's minimum asks for is masked first and counts; what its maximum forbids does not
    compete. The rest is taken in ascending importance (ties: unit, then flat index) up to the
    first block that would exceed the budget. A unit whose ratio is met in every row competes with
    the mean of its rows' i-th lowest blocks, taken together.

    Args:
        units: the units of one group.

    Returns:
        For each unit bool, its rows' shape, True = kept; 0 and 1 in the place of its rows where it
        is expendable.

    """
    # Planning has refused units of different ratios, and those that have none or fix their own.
    ratio = next(unit.ratio for unit in units if unit.ratio is not None)
    competitors = enter(units)
    budget = count_masked(ratio, sum(unit.elements for unit in units))
    budget = max(budget - sum(entry.forced_elements for entry in competitors), 0)
    free = [entry.free for entry in competitors]
    if any(entry.weights is not None for entry in competitors):
        counts = count_in_contest(free, [entry.free_weights for entry in competitors], budget)
        return [
            keep_highest(unit.rows, entry.forced + count)
            for unit, entry, count in zip(units, competitors, counts, strict=True)
        ]
    cut = cut_smallest(free, [entry.weight for entry in competitors], budget)
    results = []
    for unit, entry, values, ties in zip(units, competitors, free, cut.ties, strict=True):
        is_direct = len(unit.rows) == 1 and entry.competing is None
        out = values if is_direct and unit.is_expendable else None
        above = is_above(values, cut.value, ties, out=out)
        if not is_direct:
            masked = entry.forced + len(above) - int(above.count_nonzero())
            results.append(keep_highest(unit.rows, masked))
        else:
            results.append(above.reshape(unit.rows.shape))
    return results
