"""Budgets that count what shrinking removes: where they make sense, and what they need (B4.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tersely.arithmetic.blocks import resolve_size
from tersely.arithmetic.numbered import Numbering
from tersely.contracts.target_plan import TargetPlan
from tersely.errors import PlanError
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.planning.stages.draft import Draft


def is_budgeted(target: TargetPlan) -> bool:
    """Tell whether a target has a budget with others, or one that counts what shrinking removes.

    Args:
        target: a pruning target.
    """
    setting = target.pruning
    return setting.global_group_id is not None or setting.is_counted_small


def check_counted(targets: Sequence[TargetPlan], draft: Draft) -> None:
    """Add what contradicts a budget in parameters or operations to the draft's problems.

    Args:
        targets: the pruning targets that are ranked by themselves and have such a budget.
        draft: the plan they belong to.
    """
    groups: dict[tuple[str, Json], dict[str, TargetPlan]] = {}
    is_counted: set[tuple[str, Json]] = set()
    for target in targets:
        group = target.pruning.global_group_id
        if group is not None:
            key = (type(group).__name__, group)
            groups.setdefault(key, {}).setdefault(target.pruning.budget, target)
            if target.pruning.is_counted_small:
                is_counted.add(key)
        if not target.pruning.is_counted_small:
            continue
        problem = _problem(target)
        if problem is not None:
            budget = target.pruning.budget
            draft.blame(target.origin.path, target.name, f"budget {budget!r} {problem}")
    for key, budgets in groups.items():
        if key in is_counted and len(budgets) > 1:
            shown = ", ".join(f"{budget} ({one.name})" for budget, one in budgets.items())
            draft.problems.append(
                f"global_group_id {key[1]!r}: its members must have one budget, found {shown}"
            )


def _problem(target: TargetPlan) -> str | None:
    if target.pruning.global_group_id is None:
        return (
            "counts what the targets of one global group remove together; give global_group_id to "
            "all of them"
        )
    if target.kind != "parameter" or target.pruning.is_additive:
        return (
            "counts what shrinking removes, but only masks that multiply parameters allow anything "
            "to be removed; leave it out for inputs, outputs and apply_method: add"
        )
    if target.blocks is None or target.shape is None or _cuts_slices(target):
        return None
    return (
        "counts what shrinking removes, but masks of single elements remove nothing; write "
        "granularity: out_channel (or in_channel), or an algorithm that prunes channels, such as "
        "l1_norm"
    )


def _cuts_slices(target: TargetPlan) -> bool:
    assert target.blocks is not None  # the caller has checked
    assert target.shape is not None  # as above
    size = resolve_size(target.blocks.size, target.shape)
    if isinstance(size, Numbering):
        return any(size.has_slices(dim, all_of_them=True) for dim in range(len(size)))
    return sum(one != length for one, length in zip(size, target.shape, strict=True)) <= 1


def is_counted(plan: Plan) -> bool:
    """Tell whether a plan has a budget that counts what shrinking removes.

    Args:
        plan: the plan.
    """
    return _counted_target(plan) is not None


def _counted_target(plan: Plan) -> TargetPlan | None:
    if all(stage.method != "pruning" for stage in plan.recipe.stages):
        return None
    # A large model has many targets and few settings.
    seen: set[int] = set()
    for target in plan.targets:
        if id(target.setting) in seen:
            continue
        seen.add(id(target.setting))
        if target.method == "pruning" and target.pruning.is_counted_small:
            return target
    return None


def need_example_to_count(plan: Plan, example_inputs: Any) -> None:
    """Refuse a budget in parameters or operations without anything to run the model with.

    Args:
        plan: the plan.
        example_inputs: what to run the model with, or None.

    Raises:
        PlanError: there are none.
    """
    target = None if example_inputs is not None else _counted_target(plan)
    if target is not None:
        raise PlanError(
            f"{target.origin.path}: budget {target.pruning.budget!r} counts what shrinking "
            "removes, which is found by running the model, but there are no example inputs; give "
            "example_inputs to tersely.attach or tersely.prune, or data.example to a job",
            **target.place,
        )
