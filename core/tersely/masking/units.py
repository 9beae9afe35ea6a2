"""What takes decisions of its own: a single target, or all targets of one dependency group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from tersely.contracts.settings import DEFAULT_BUDGET, Budget
from tersely.errors import PlanError
from tersely.masking.budgets import as_fraction
from tersely.masking.member import Member, Ratio
from tersely.masking.scopes import scope_in_blocks, scopes_problem, to_rows


@attrs.frozen(kw_only=True, eq=False)
class Unit:
    """Targets that share one decision, and the limits it has to meet.

    Attributes:
        name: the target's name, or the group with its members' names, for errors.
        indices: positions of the members in the sequence they came from.
        rows: shape (rows, blocks per row), float: the mean importance of the members; the ratio
            is met in every row.
        scope: blocks per scope along each dimension, or None where rows are runs.
        weight: elements that one decision masks, over all members, where all mask equally many.
        weights: elements that each decision masks where that differs, the rows' shape, int64.
        ratio: the share of blocks to mask, or None.
        threshold: blocks of lower importance are masked, or None.
        minimum: the share of blocks that is masked at least.
        maximum: the share of blocks that is masked at most.
        keep: blocks kept in every row whatever the ratio says, or None.
        global_group: id of the group that shares one budget, or None.
        budget: what the ratio of that group counts.
        is_expendable: whether decisions may take the place of the rows in memory.
    """

    name: str
    indices: tuple[int, ...]
    rows: Tensor
    scope: tuple[int, ...] | None
    weight: int
    ratio: Ratio | None
    threshold: float | None
    minimum: Ratio
    maximum: Ratio
    keep: int | None
    global_group: str | int | None
    budget: Budget = DEFAULT_BUDGET
    is_expendable: bool = False
    weights: Tensor | None = None

    @property
    def elements(self) -> int:
        """Elements of all members."""
        if self.weights is not None:
            return int(self.weights.sum())
        return self.rows.numel() * self.weight


def make_units(members: Sequence[Member]) -> list[Unit]:
    """Merge dependency groups; every other target stands alone.

    Args:
        members: the targets.

    Returns:
        Units in the order of their first members.

    Raises:
        PlanError: members of one dependency group have different numbers of blocks or scopes, or
            a number of runs does not fit the blocks, as only the shapes of inputs and outputs
            that calibration saw can show.
    """
    grouped: dict[tuple[str, object], list[int]] = {}
    for index, member in enumerate(members):
        group = member.dependency_group
        key = ("alone", index) if group is None else ("group", group)
        grouped.setdefault(key, []).append(index)
    return [_make_unit([members[i] for i in indices], indices) for indices in grouped.values()]


def _make_unit(members: Sequence[Member], indices: Sequence[int]) -> Unit:
    first = members[0]
    name = first.name
    if len(members) > 1:
        name = f"dependency group {first.dependency_group!r} ({_listed(members)})"
    _check_parts(members, name)
    _check_counts(members, name)
    scope = _common_scope(members, name)
    runs = math.lcm(*(member.runs for member in members))
    _check_runs(name, runs, first.decisions, has_scope=scope is not None, target=first.name)
    # Planning has refused members that state different ratios, thresholds or global groups; what
    # one of them states holds for those that state nothing.
    ratio: Ratio | None = _first(member.ratio for member in members)
    threshold: float | None = _first(member.threshold for member in members)
    global_group: str | int | None = _first(member.global_group for member in members)
    weights = _weights(members)
    rows = to_rows(_mean([_met(member) for member in members]), scope, runs)
    counted = (member.budget for member in members if member.budget != DEFAULT_BUDGET)
    return Unit(
        name=name,
        indices=tuple(indices),
        rows=rows,
        scope=scope,
        weight=0 if weights is not None else sum(member.weight for member in members),
        weights=None if weights is None else weights.reshape(rows.shape).to(rows.device),
        ratio=ratio,
        threshold=threshold,
        minimum=max((member.minimum for member in members), key=as_fraction),
        maximum=min((member.maximum for member in members), key=as_fraction),
        keep=first.blocks.keep,
        global_group=global_group,
        budget=next(counted, DEFAULT_BUDGET),
        is_expendable=len(members) == 1 and first.is_expendable and first.parts == 1,
    )


def _weights(members: Sequence[Member]) -> Tensor | None:
    uneven = [one for one in (member.weights for member in members) if one is not None]
    if not uneven:
        return None
    even = sum(member.weight for member in members if member.weights is None)
    return torch.stack(uneven).sum(0) + even


def _met(member: Member) -> Tensor:
    """The importance of each decision: the mean of the blocks that share it."""
    importance = member.importance.detach()
    if member.parts == 1:
        return importance
    return importance.reshape(member.parts, -1).mean(0)


def _check_parts(members: Sequence[Member], name: str) -> None:
    for member in members:
        if member.parts == 1:
            continue
        blocks = member.importance.numel()
        if member.blocks.scope is not None:
            raise PlanError(
                f"{name}: dependency_parts {member.parts} cannot tie blocks whose granularity "
                "counts the ratio in scopes; remove one of the two",
                target=member.name,
            )
        if blocks % member.parts:
            raise PlanError(
                f"{name}: dependency_parts {member.parts} does not divide the {blocks} blocks of "
                f"{member.name} into equal parts",
                target=member.name,
            )


def _mean(importances: Sequence[Tensor]) -> Tensor:
    if len(importances) == 1:
        return importances[0]
    first = importances[0]
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    flat = [tensor.to(first.device, dtype).flatten() for tensor in importances]
    return torch.stack(flat).mean(0).reshape(first.shape)


def _check_counts(members: Sequence[Member], name: str) -> None:
    if len({member.decisions for member in members}) > 1:
        counts = ", ".join(f"{member.name} has {member.decisions}" for member in members)
        raise PlanError(
            f"{name}: members share one decision per block, so they need the same number of "
            f"blocks: {counts}; change their granularity or their dependency_group_id",
            target=members[0].name,
        )


def _check_runs(name: str, runs: int, blocks: int, *, has_scope: bool, target: str) -> None:
    if runs == 1:
        return
    if has_scope:
        raise PlanError(
            f"{name}: internal_metric_block {runs} cannot split blocks whose granularity already "
            "counts the ratio in scopes; remove one of the two",
            target=target,
        )
    if blocks % runs:
        fitting = [count for count in range(1, min(blocks, 64) + 1) if blocks % count == 0]
        raise PlanError(
            f"{name}: internal_metric_block {runs} does not divide its {blocks} blocks; what does: "
            f"{', '.join(map(str, fitting))}",
            target=target,
        )


def _common_scope(members: Sequence[Member], name: str) -> tuple[int, ...] | None:
    problem = scopes_problem([(member.blocks, member.shape) for member in members])
    if problem is not None:
        raise PlanError(f"{name}: {problem}", target=members[0].name)
    return scope_in_blocks(members[0].blocks, members[0].shape)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _listed(members: Sequence[Member]) -> str:
    return ", ".join(member.name for member in members)
