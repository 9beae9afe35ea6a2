"""Whether masks missed what a plan asks for, found out without describing the session."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import TargetPlan
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.reporting.describing.expectation import (
    DependencyBounds,
    is_missed,
    largest_block,
    requested_sparsity,
    rounding_slack,
)
from tersely.reporting.reported import Reported


def unfinished_stages(session: Reported) -> frozenset[int]:
    """Return the stages, by index in the recipe, whose sparsity is not to be compared.

    It is still growing, or what was masked is gone.

    Args:
        session: an attached session.
    """
    # Some algorithms define the growth of their sparsity themselves.
    growing = (*last_updates(session.plan, session.steps), *session.growing_stages())
    return frozenset((*growing, *session.shrunk_stages))


def last_updates(plan: Plan, steps: int) -> dict[int, int]:
    """Return stage index -> the step of its last update, for schedules that have not got there.

    Args:
        plan: the plan.
        steps: optimizer steps so far.
    """
    found = {}
    for number, stage in enumerate(plan.recipe.stages):
        if stage.schedule is not None:
            last = stage.schedule.begin + stage.schedule.every * stage.schedule.times
            if steps < last:
                found[number] = last
    return found


def may_have_missed(
    plan: Plan, achieved: Mapping[str, Mapping[str, float]], *, unfinished: Collection[int]
) -> bool:
    """Tell whether a report may have something to warn of.

    Args:
        plan: the plan.
        achieved: the masked fraction of every target that has a mask.
        unfinished: the stages whose sparsity is still growing.

    Returns:
        False only where a report has no warnings. An input or output, whose elements only its
        mask knows, counts as one that has some.
    """
    bounds = DependencyBounds(plan)
    # Equal targets share their setting and are asked the same.
    asked: dict[tuple[int, object, int], tuple[float | None, float]] = {}
    groups: dict[Json, list[tuple[TargetPlan, float]]] = {}
    for target in plan.targets:
        if target.method != "pruning" or target.stage in unfinished:
            continue
        key = (id(target.setting), target.shape, id(target.blocks))
        if key not in asked:
            asked[key] = (requested_sparsity(target, bounds), rounding_slack(target, bounds))
        requested, slack = asked[key]
        sparsity = achieved.get(target.module, {}).get(target.target)
        if is_missed(requested, sparsity, slack=slack):
            return True
        group = shared_group(target)
        if group is not None:
            groups.setdefault(group, []).append((target, sparsity or 0.0))
    return any(_is_group_missed(members) for members in groups.values())


def shared_group(target: TargetPlan) -> str | int | None:
    """Return the global group whose budget of elements a target shares, or None.

    Args:
        target: a planned target.
    """
    setting = target.setting
    if not isinstance(setting, PruningSetting) or setting.sparse_ratio is None:
        return None
    if setting.is_counted_small:  # its ratio is not a share of elements
        return None
    return setting.global_group_id


def _is_group_missed(members: Sequence[tuple[TargetPlan, float]]) -> bool:
    sizes = [(one, math.prod(one.shape or (0,)), share) for one, share in members]
    if any(one.shape is None for one, _, _ in sizes):
        return True
    elements = sum(size for _, size, _ in sizes)
    if not elements:
        return False
    masked = sum(round(share * size) for _, size, share in sizes)
    coarsest = max(largest_block(one, size) for one, size, _ in sizes)
    requested = float(members[0][0].pruning.sparse_ratio or 0)
    return is_missed(requested, masked / elements, slack=coarsest / elements)
