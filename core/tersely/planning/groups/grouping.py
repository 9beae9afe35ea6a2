"""Whether the members of global and dependency groups agree (rules B2.4, B4 and B5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from tersely.arithmetic.blocks import count_blocks
from tersely.contracts.target_plan import TargetPlan
from tersely.json_value import Json
from tersely.masking.scopes import scopes_problem
from tersely.planning.stages.draft import Draft, and_more

Shared = Literal["sparse_ratio", "sparse_threshold", "global_group_id", "dependency_group_id"]
"""A key of which the members of a group state one value."""

GLOBAL: Shared = "global_group_id"
DEPENDENCY: Shared = "dependency_group_id"
_REQUESTS: tuple[Shared, ...] = ("sparse_ratio", "sparse_threshold")


def check_groups(targets: Sequence[TargetPlan], draft: Draft) -> None:
    """Add every contradiction inside a group to the draft's problems.

    Args:
        targets: the pruning targets that are in a group.
        draft: the plan they belong to.
    """
    own = [target for target in targets if target.align is None]
    together = _members(DEPENDENCY, own)
    ratios: dict[int, Json] = {}
    for group, members in together:
        ratio = next((one for one in first_by_value("sparse_ratio", members)), None)
        ratios.update((id(member), ratio) for member in members)
        _check_dependency_group(group, members, draft)
    for group, members in _members(GLOBAL, own):
        _check_global_group(group, members, draft, ratios=ratios)


def _members(key: Shared, targets: Sequence[TargetPlan]) -> list[tuple[str, list[TargetPlan]]]:
    # Ids are compared as written: 1 and "1" are two groups.
    found: dict[tuple[str, Json], list[TargetPlan]] = {}
    for target in targets:
        value = stated(target, key)
        if value is not None:
            found.setdefault((type(value).__name__, value), []).append(target)
    return [(f"{key} {value!r}", members) for (_, value), members in found.items()]


def stated(target: TargetPlan, key: Shared) -> Json:
    """Return what a pruning target says of a key that members of a group share, or None.

    Args:
        target: the target.
        key: the key.
    """
    return getattr(target.pruning, key)


def first_by_value(key: Shared, members: Sequence[TargetPlan]) -> dict[Json, TargetPlan]:
    """Return every value that members state of a key, with the first member that states it.

    Args:
        key: the key.
        members: pruning targets.
    """
    found: dict[Json, TargetPlan] = {}
    for member in members:
        value = stated(member, key)
        if value is not None:
            found.setdefault(value, member)
    return found


def _check_dependency_group(group: str, members: Sequence[TargetPlan], draft: Draft) -> None:
    _check_stage(group, members, draft)
    for key in (*_REQUESTS, GLOBAL):
        _check_one_value(key, group, members, draft)
    ratios, thresholds = (first_by_value(key, members) for key in _REQUESTS)
    for ratio, threshold in zip(ratios.values(), thresholds.values(), strict=False):
        draft.problems.append(
            f"{group}: its members share one decision, found sparse_ratio ({ratio.name}) and "
            f"sparse_threshold ({threshold.name}); write one of them"
        )
        break
    in_global = first_by_value(GLOBAL, members)
    outside = [member for member in members if member.pruning.global_group_id is None]
    if in_global and outside:
        name = f"{GLOBAL} {next(iter(in_global))!r}"
        draft.problems.append(
            f"{group}: other members are in {name}, found none on {_names(outside)}; give it to "
            "all of them or to none"
        )
    _check_bounds(group, members, draft)
    _check_blocks(group, members, draft)
    bounds = (*ratios, *thresholds, *in_global)
    if not bounds:
        draft.hints.append(
            f"{group}: no member has a sparse_ratio or sparse_threshold, so nothing of "
            f"{_names(members)} will be masked"
        )


def _check_global_group(
    group: str, members: Sequence[TargetPlan], draft: Draft, *, ratios: dict[int, Json]
) -> None:
    _check_stage(group, members, draft)
    _check_one_value("sparse_ratio", group, members, draft)
    cut = [member for member in members if member.pruning.sparse_threshold is not None]
    if cut:
        draft.problems.append(
            f"{group}: its members share one sparse_ratio, so the sparse_threshold of "
            f"{_names(cut)} has no place in it; write sparse_ratio or leave the group out"
        )
    without = [
        member
        for member in members
        if member.pruning.sparse_ratio is None and ratios.get(id(member)) is None
    ]
    if without and not cut:
        draft.problems.append(
            f"{group}: every member needs the group's sparse_ratio, found none on {_names(without)}"
        )


def _check_stage(group: str, members: Sequence[TargetPlan], draft: Draft) -> None:
    stages: dict[int, TargetPlan] = {}
    for member in members:
        stages.setdefault(member.stage, member)
    if len(stages) > 1:
        names = " and ".join(member.name for member in stages.values())
        draft.problems.append(
            f"{group}: its members must be in one stage, {names} are not; importances of two "
            "algorithms cannot be compared"
        )


def _check_one_value(key: Shared, group: str, members: Sequence[TargetPlan], draft: Draft) -> None:
    values = first_by_value(key, members)
    if len(values) > 1:
        spell: Callable[[Json], str] = repr if key == GLOBAL else "{:g}".format
        shown = ", ".join(f"{spell(value)} ({member.name})" for value, member in values.items())
        draft.problems.append(f"{group}: its members must have one {key}, found {shown}")


def _check_bounds(group: str, members: Sequence[TargetPlan], draft: Draft) -> None:
    lowest = max(members, key=lambda one: one.pruning.min_sparse_ratio)
    highest = min(members, key=lambda one: one.pruning.max_sparse_ratio)
    low, high = lowest.pruning.min_sparse_ratio, highest.pruning.max_sparse_ratio
    if low > high:
        draft.problems.append(
            f"{group}: min_sparse_ratio {low:g} ({lowest.name}) is larger than max_sparse_ratio "
            f"{high:g} ({highest.name}), and both hold for all members"
        )


def _check_blocks(group: str, members: Sequence[TargetPlan], draft: Draft) -> None:
    known = [
        (member.blocks, member.shape)
        for member in members
        if member.blocks is not None and member.shape is not None
    ]
    problem = scopes_problem(known) if known else None
    if problem is not None:
        draft.problems.append(f"{group}: {problem}")
    counts: dict[int, TargetPlan] = {}
    for member in members:
        if member.blocks is not None and member.shape is not None:
            blocks = math.prod(count_blocks(member.blocks.size, member.shape))
            counts.setdefault(blocks // member.pruning.dependency_parts, member)
    if len(counts) > 1:
        shown = ", ".join(f"{count} ({member.name})" for count, member in counts.items())
        draft.problems.append(
            f"{group}: its members must have the same number of blocks, found {shown}; they are "
            "pruned at the same positions"
        )
        return
    runs = math.lcm(*(member.pruning.runs for member in members))
    for count, member in counts.items():
        if count % runs:
            draft.problems.append(
                f"{group}: its members meet their ratio in {runs} runs together (the least common "
                f"multiple of internal_metric_block), which do not divide the {count} blocks of "
                f"{member.name} into equal runs"
            )


def _names(members: Sequence[TargetPlan]) -> str:
    return f"{members[0].name}{and_more(len(members) - 1)}"
