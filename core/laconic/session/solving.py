"""Pruners that change the remaining weights: how they choose, and what they leave."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.algorithms import PruningTarget, Solution, Solves
from laconic.blocks import Blocks
from laconic.errors import CalibrationError, PlanError, PluginError
from laconic.masking.decide import decide
from laconic.masking.member import Member


def solve(pruner: Solves, target: PruningTarget, member: Member) -> Solution:
    """Let an algorithm choose and update one target, and check what it returns.

    Args:
        pruner: the algorithm.
        target: the target with everything it observed.
        member: the target's limits as the budget code sees them, with any importance.

    Raises:
        PlanError: the target's shape or granularity does not suit the algorithm.
        CalibrationError: the new values are not finite.
        PluginError: the algorithm returned other shapes.
    """

    def choose(scores: Tensor) -> Tensor:
        keep = member.blocks.keep
        scope = None
        if keep is not None and member.blocks.scope is not None:
            scope = (1, max(member.blocks.scope))
        blocks = Blocks((1, 1), scope, keep)
        return decide(
            [
                Member(
                    name=member.name,
                    importance=scores,
                    shape=tuple(scores.shape),
                    blocks=blocks,
                    ratio=member.ratio,
                    threshold=member.threshold,
                    minimum=member.minimum,
                    maximum=member.maximum,
                )
            ]
        )[0]

    try:
        with torch.no_grad():
            solution = pruner.solve(target, choose)
    except ValueError as error:
        raise PlanError(f"{target.plan.origin.path}: {target.name}: {error}") from error
    shape = target.tensor.shape
    if solution.kept.shape != shape or solution.tensor.shape != shape:
        raise PluginError(
            f"{target.plan.algorithm} returned a mask of shape {list(solution.kept.shape)} and "
            f"values of shape {list(solution.tensor.shape)} for {target.name}; expected "
            f"{list(shape)}"
        )
    if not bool(solution.tensor.sum().isfinite()):
        raise CalibrationError(
            f"{target.name}: {target.plan.algorithm} found values that are not finite; calibrate "
            f"with more batches or raise its damping"
        )
    return solution
