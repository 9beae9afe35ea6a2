"""From importances and limits to the blocks that are kept: all budget rules in one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from tersely.contracts.settings import DEFAULT_BUDGET, Budget
from tersely.errors import CalibrationError, SessionError
from tersely.masking.budgets import bound_count, count_masked
from tersely.masking.contest import share_budget
from tersely.masking.counted import Removal, share_counted
from tersely.masking.member import Member
from tersely.masking.rows import keep_highest
from tersely.masking.scopes import from_rows
from tersely.masking.uneven import bound_by_elements, keep_by_elements
from tersely.masking.units import Unit, make_units

CountsMembers: TypeAlias = Callable[[Budget, Sequence[Tensor | None]], Removal]
"""Counts what masks of the members remove; bool, (blocks along each dimension), or None."""


def decide(members: Sequence[Member], *, count: CountsMembers | None = None) -> list[Tensor]:
    """Decide which blocks of every target are kept.

    Args:
        members: the targets with their importances and limits. Global groups are formed among
            them, so all targets of a group belong into one call.
        count: counts what masks remove, for groups whose ratio is counted so (rule B4.7).

    Returns:
        For each member bool, shape (blocks along each dimension), True = kept; of an expendable
        one perhaps 0 and 1 in the importance's dtype and memory. Members of a dependency group get
        equal decisions.

    Raises:
        PlanError: members of a group, or runs, do not fit the blocks that calibration showed.
        CalibrationError: an importance is not finite.
        SessionError: a group counts what masks remove, and nothing counts it.
    """
    for member in members:
        _check_finite(member)
    units = make_units(members)
    groups: dict[str | int, list[Unit]] = {}
    kept: list[Tensor | None] = [None] * len(members)
    for unit in units:
        if unit.global_group is None:
            _place(decide_alone(unit), unit, members, kept)
        else:
            groups.setdefault(unit.global_group, []).append(unit)
    for group in groups.values():
        for unit, rows in zip(group, _share(group, members, count), strict=True):
            _place(rows, unit, members, kept)
    return [tensor for tensor in kept if tensor is not None]


def _share(
    group: Sequence[Unit], members: Sequence[Member], count: CountsMembers | None
) -> list[Tensor]:
    if all(unit.budget == DEFAULT_BUDGET for unit in group):
        return share_budget(group)
    if count is None:
        raise SessionError(
            f"{group[0].name}: budget {group[0].budget!r} counts what shrinking removes, which is "
            "found by running the model, but the session has no example inputs; give "
            "example_inputs to tersely.attach or tersely.load_session",
            target=group[0].name,
        )

    def removal(budget: Budget, rows: Sequence[Tensor]) -> Removal:
        kept: list[Tensor | None] = [None] * len(members)
        for unit, decision in zip(group, rows, strict=True):
            _place(decision, unit, members, kept)
        return count(budget, kept)

    return share_counted(group, removal)


def decide_alone(unit: Unit) -> Tensor:
    """Decide for one unit that shares no budget.

    Args:
        unit: the unit; without keep, ratio and threshold everything is kept.

    Returns:
        Bool, the rows' shape, True = kept; 0 and 1 in the place of its rows where it is
        expendable.
    """
    total = unit.rows.shape[1]
    if unit.keep is not None:
        return keep_highest(unit.rows, total - unit.keep, is_expendable=unit.is_expendable)
    if unit.ratio is not None and unit.weights is not None:
        bounded = min(max(unit.ratio, unit.minimum), unit.maximum)
        return keep_by_elements(unit.rows, unit.weights, ratio=bounded)
    if unit.ratio is not None:
        count = count_masked(unit.ratio, total)
        count = bound_count(count, total, minimum=unit.minimum, maximum=unit.maximum)
        return keep_highest(unit.rows, count, is_expendable=unit.is_expendable)
    if unit.threshold is None:
        return torch.ones_like(unit.rows, dtype=torch.bool)
    return _keep_from_threshold(unit, unit.threshold)


def _keep_from_threshold(unit: Unit, threshold: float) -> Tensor:
    kept = unit.rows >= threshold
    if unit.weights is not None:
        return bound_by_elements(
            kept, unit.rows, unit.weights, minimum=unit.minimum, maximum=unit.maximum
        )
    total = unit.rows.shape[1]
    counts = total - kept.sum(1)
    lowest = bound_count(0, total, minimum=unit.minimum, maximum=unit.maximum)
    highest = bound_count(total, total, minimum=unit.minimum, maximum=unit.maximum)
    for outside, bound in ((counts < lowest, lowest), (counts > highest, highest)):
        if outside.any():
            kept[outside] = keep_highest(unit.rows[outside], bound)
    return kept


def _place(rows: Tensor, unit: Unit, members: Sequence[Member], kept: list[Tensor | None]) -> None:
    for index in unit.indices:
        importance = members[index].importance
        parts = members[index].parts
        shape = tuple(importance.shape) if parts == 1 else (members[index].decisions,)
        decision = from_rows(rows, unit.scope, shape).to(importance.device)
        if parts > 1:
            kept[index] = decision.repeat(parts).reshape(importance.shape)
            continue
        # Members of a group must not share memory: each mask is its target's own.
        kept[index] = decision if len(unit.indices) == 1 else decision.clone()


def _check_finite(member: Member) -> None:
    importance = member.importance.detach()
    # A finite sum, taken in one pass, proves that all values are finite; an infinite one may be
    # an overflow.
    if bool(importance.sum().isfinite()):
        return
    wrong = (~importance.isfinite()).flatten().nonzero().flatten()
    if len(wrong):
        index = int(wrong[0])
        value = float(importance.flatten()[index])
        by = f" by {member.algorithm}" if member.algorithm else ""
        raise CalibrationError(
            f"{member.name}: {len(wrong)} of its {importance.numel()} importances{by} are not "
            f"finite (the first is {value}, at flat index {index}); check the model's weights and "
            "the calibration data for NaN and overflow",
            target=member.name,
            algorithm=member.algorithm or None,
        )
