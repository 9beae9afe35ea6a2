"""The data of a plan, without the ways to show it and to turn it into JSON."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tersely.contracts.target_plan import TargetPlan
from tersely.document.recipe import Recipe
from tersely.planning.remarks import Shadowed, Skipped, Unmatched


@attrs.frozen(kw_only=True)
class PlanData:
    """What planning decided; `tersely.planning.plan` shows it and writes it.

    Attributes:
        targets: one TargetPlan per target and method, in module order within each stage.
        recipe: the recipe it was resolved from.
        selected: names of all selected modules, in module order.
        unmatched: what matched nothing.
        shadowed: entries that lost a target to another.
        skipped: targets that do not exist on a selected module.
        hints: remarks on what is legal, such as a plain word that also selects longer names.
    """

    targets: tuple[TargetPlan, ...]
    recipe: Recipe
    selected: tuple[str, ...] = ()
    unmatched: tuple[Unmatched, ...] = ()
    shadowed: Sequence[Shadowed] = ()
    skipped: tuple[Skipped, ...] = ()
    hints: tuple[str, ...] = ()
