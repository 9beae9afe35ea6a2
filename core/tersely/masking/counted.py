"""Global groups whose ratio counts what shrinking removes: parameters or operations of the model.

What a block removes depends on what else is masked, since a layer shrinks with its own channels and
with those that it reads. So blocks have no weight of their own: whole decisions are counted, and
the shortest ascending prefix is searched whose count reaches the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from tersely.contracts.settings import Budget
from tersely.errors import PlanError
from tersely.masking.budgets import count_masked
from tersely.masking.contest import Competitor, enter
from tersely.masking.rows import keep_highest
from tersely.masking.units import Unit


@attrs.frozen
class Removal:
    """What shrinking with some masks would do.

    Attributes:
        removed: parameters, or multiply-accumulate operations, that are gone afterwards.
        total: how many the model has before.
    """

    removed: int
    total: int


CountsRemoval: TypeAlias = Callable[[Budget, Sequence[Tensor]], Removal]
"""Counts what a decision on each unit of a group removes; bool, the shape of its rows."""


def share_counted(units: Sequence[Unit], count: CountsRemoval) -> list[Tensor]:
    """Mask the lowest importances of a global group until the small model meets its ratio.

    What a unit's minimum asks for is masked first; what its maximum forbids does not compete. The
    rest is masked in ascending importance (ties: unit, then flat index), and masking stops with
    the block with which the share that is removed reaches the ratio.

    Args:
        units: the units of one group.
        count: counts what decisions remove; more masks never remove less.

    Returns:
        For each unit bool, its rows' shape, True = kept.

    Raises:
        PlanError: all that may be masked does not remove as much as the ratio asks for.
    """
    ratio = next(unit.ratio for unit in units if unit.ratio is not None)
    budget = units[0].budget
    contest = _Contest.of(units)
    most = count(budget, contest.kept(contest.decisions))
    wanted = count_masked(ratio, most.total)
    if most.removed < wanted:
        raise PlanError(_too_little(units, budget, most, wanted))
    reaches = _Bound(contest.decisions, most.removed)
    below = _Bound(0, count(budget, contest.kept(0)).removed)
    if below.removed >= wanted:
        return contest.kept(0)
    is_halving = False
    while reaches.masked - below.masked > 1:
        width = reaches.masked - below.masked
        masked = below.masked + (width // 2 if is_halving else _guess(below, reaches, wanted))
        found = _Bound(masked, count(budget, contest.kept(masked)).removed)
        if found.removed < wanted:
            below = found
        else:
            reaches = found
        # A guess that hardly narrows the bracket is followed by a cut in the middle.
        is_halving = not is_halving and reaches.masked - below.masked > width // 2
    return contest.kept(reaches.masked)


@attrs.frozen
class _Bound:
    masked: int
    removed: int


def _guess(below: _Bound, reaches: _Bound, wanted: int) -> int:
    """Return how far above the lower bound a straight line between both meets what is wanted."""
    width = reaches.masked - below.masked
    step = (wanted - below.removed) * width // (reaches.removed - below.removed)
    return min(max(step, 1), width - 1)


@attrs.frozen(eq=False)
class _Contest:
    units: Sequence[Unit]
    competitors: Sequence[Competitor]
    places: Tensor  # the rank of every competing decision in the group, units after each other

    @classmethod
    def of(cls, units: Sequence[Unit]) -> _Contest:
        competitors = enter(units)
        free = torch.cat([entry.free.cpu() for entry in competitors])
        order = free.argsort(stable=True)
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order))
        return cls(units, competitors, places)

    @property
    def decisions(self) -> int:
        return len(self.places)

    def kept(self, masked: int) -> list[Tensor]:
        """Return the decisions of all units when the lowest ``masked`` that compete are masked."""
        found, start = [], 0
        for unit, entry in zip(self.units, self.competitors, strict=True):
            size = len(entry.free)
            below = self.places[start : start + size] < masked
            start += size
            found.append(keep_highest(unit.rows, entry.forced + int(below.count_nonzero())))
        return found


def _too_little(units: Sequence[Unit], budget: Budget, most: Removal, wanted: int) -> str:
    what = "parameters" if budget == "parameters" else "multiply-accumulate operations"
    return (
        f"global_group_id {units[0].global_group!r}: budget {budget!r} requires removing "
        f"{wanted:,} of the model's {most.total:,} {what}, but shrinking removes only "
        f"{most.removed:,} with everything masked that its members allow; lower sparse_ratio, "
        "raise max_sparse_ratio, put more layers into the group, or tie layers whose channels are "
        "added to each other (dependency_groups: auto)"
    )
