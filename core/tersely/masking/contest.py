"""How a unit enters the contest of a global group: what is forced, barred, or competes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import attrs
import torch
from torch import Tensor

from tersely.masking.budgets import count_masked
from tersely.masking.rows import keep_highest
from tersely.masking.units import Unit


@attrs.frozen(kw_only=True, eq=False)
class Competitor:
    """One unit's decisions in the contest: forced and barred ones do not compete.

    Attributes:
        values: shape (decisions,), float.
        weight: elements that one decision masks.
        forced: how many decisions the minimum masks before anything competes.
        competing: shape (decisions,), bool; None = all compete.
    """

    values: Tensor
    weight: int
    forced: int
    competing: Tensor | None

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
    values = unit.rows[0] if rows == 1 else unit.rows.sort(dim=1).values.mean(0)
    values = values.to(dtype)
    lowest = count_masked(unit.minimum, total)
    highest = max(count_masked(unit.maximum, total), lowest)
    competing = None
    if lowest or highest < total:
        below_highest = ~keep_highest(values[None], highest)[0]
        competing = keep_highest(values[None], lowest)[0].logical_and_(below_highest)
    return Competitor(values=values, weight=unit.weight * rows, forced=lowest, competing=competing)
