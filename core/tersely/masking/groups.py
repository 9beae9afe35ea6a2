"""Global groups: several units compete for one budget of masked elements."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tersely.masking.budgets import count_masked
from tersely.masking.contest import enter
from tersely.masking.rows import keep_highest
from tersely.masking.select import cut_smallest, is_above
from tersely.masking.units import Unit


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
    budget -= sum(entry.forced * entry.weight for entry in competitors)
    free = [entry.free for entry in competitors]
    cut = cut_smallest(free, [entry.weight for entry in competitors], max(budget, 0))
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
