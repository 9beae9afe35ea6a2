"""Pruners that change the remaining weights: how they choose, and what they leave."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, resolve_size
from tersely.contracts.pruner import Choose, PruningTarget, Solution, Solves
from tersely.engine.isolation.foreign import ForeignCall
from tersely.errors import PlanError
from tersely.masking.budgets import bound_count, count_masked
from tersely.masking.decide import decide
from tersely.masking.member import Member, Ratio
from tersely.masking.rows import keep_highest
from tersely.pruning.returned_values import check_solution


def solve(pruner: Solves, target: PruningTarget, member: Member) -> Solution:
    """Let an algorithm choose and update one target, and check what it returns.

    Args:
        pruner: the algorithm.
        target: the target with everything it observed.
        member: the target's limits as the budget code sees them, with any importance.

    Raises:
        PlanError: the target's shape or granularity does not suit the algorithm.
        CalibrationError: the new values are not finite.
        PluginError: the algorithm failed, or what it returned does not meet what was asked for.
    """
    plan = target.plan

    def refusal(error: ValueError) -> PlanError:
        return PlanError(f"{plan.origin.path}: {target.name}: {error}", **plan.place)

    failure = f"{plan.algorithm} failed on {target.name}"
    with (
        ForeignCall(failure, plugin=plan.algorithm, target=plan.name, refusal=refusal),
        torch.no_grad(),
    ):
        solution = pruner.solve(target, _choose_for(member))
    return check_solution(solution, target, member)


def _choose_for(member: Member) -> Choose:
    keep, scope = member.blocks.keep, member.blocks.scope
    if keep is not None and scope is not None:
        return _keep_of_every(keep, math.prod(scope))
    if member.ratio is not None:
        return _meet_ratio(member, member.ratio)

    def choose(scores: Tensor) -> Tensor:
        shape = tuple(scores.shape)
        part = attrs.evolve(
            member,
            importance=scores,
            shape=shape,  # type: ignore[arg-type]  # mypy misreads a converter that is a class
            blocks=Blocks((1, 1)),
        )
        return decide([part])[0]

    return choose


def _keep_of_every(keep: int, run: int) -> Choose:
    def choose(scores: Tensor) -> Tensor:
        return keep_highest(scores.reshape(-1, run), run - keep).reshape(scores.shape)

    return choose


def _meet_ratio(member: Member, ratio: Ratio) -> Choose:
    seen = masked = 0
    scopes = _count_scopes(member)

    def choose(scores: Tensor) -> Tensor:
        # Counted over all runs so far, so that what rounding leaves in one is made up in the next.
        nonlocal seen, masked
        # A ratio that is met in each row is counted there; any other over all that is shown.
        rows = scores if len(scores) == scopes else scores.reshape(1, -1)
        seen += rows.shape[1]
        due = count_masked(ratio, seen)
        due = bound_count(due, seen, minimum=member.minimum, maximum=member.maximum) - masked
        masked += due
        return keep_highest(rows, due).reshape(scores.shape)

    return choose


def _count_scopes(member: Member) -> int:
    if member.blocks.scope is None:
        return 1
    scope = resolve_size(member.blocks.scope, member.shape)
    return math.prod(member.shape) // math.prod(scope)
