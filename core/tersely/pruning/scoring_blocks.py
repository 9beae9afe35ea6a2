"""Small parameters whose blocks are scored by their values alone, many in one call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction

import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, count_blocks, sum_blocks
from tersely.contracts.ordering import OrdersInputs
from tersely.contracts.pruner import Learns, ScoresBlocks, Solves
from tersely.contracts.whole_model import ScoresModel
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.stacks import FEW, kinds_of, stacks_of
from tersely.pruning.ranking import Ranked
from tersely.pruning.run import OBSERVES_TRAINING, PruningRun
from tersely.pruning.stacking import decide_rows, is_stackable, stacked_blocks

_DOES_MORE = (Learns, OrdersInputs, ScoresModel, Solves, *OBSERVES_TRAINING)


def decide_by_blocks(
    run: PruningRun, bound_targets: Sequence[BoundTarget], factor: float | Fraction
) -> dict[BoundTarget, Tensor]:
    """Decide on small parameters that are alike, where the algorithm scores blocks.

    Args:
        run: the stage.
        bound_targets: the targets.
        factor: the share of the configured sparsity that is due now, in [0, 1].

    Returns:
        For each such parameter bool, True = kept, in the smallest shape that broadcasts to it.
        Those with which anything is wrong are left out, as an error has to name the target.
    """
    pruner = run.algorithm
    found: dict[BoundTarget, Tensor] = {}
    if not isinstance(pruner, ScoresBlocks) or isinstance(pruner, _DOES_MORE):
        return found
    if type(pruner).importance is not ScoresBlocks.importance or run.is_observing_modules:
        return found
    for some, blocks in _alike(bound_targets):
        raws = [bound.raw for bound in some]
        for positions in kinds_of(raws)[0]:
            if len(positions) < FEW:
                continue
            for members, stack in stacks_of(raws, positions):
                scores = _scores(pruner, stack, blocks)
                if scores is not None:
                    first = Ranked(some[members[0]], raws[members[0]], blocks)
                    targets = [some[position] for position in members]
                    found.update(decide_rows(first, targets, scores, factor) or {})
    return found


def _alike(bound_targets: Sequence[BoundTarget]) -> list[tuple[list[BoundTarget], Blocks]]:
    alike: dict[tuple[int, int, bool], list[BoundTarget]] = {}
    for bound in bound_targets:
        plan = bound.plan
        # Equal targets share their setting and blocks.
        alike.setdefault((id(plan.setting), id(plan.blocks), plan.has_experts), []).append(bound)
    found = []
    for some in alike.values():
        plan = some[0].plan
        if plan.blocks is None or plan.has_experts or some[0].is_activation:
            continue
        if is_stackable(plan.pruning, plan.blocks):
            found.append((some, plan.blocks))
    return found


def _scores(pruner: ScoresBlocks, stack: Tensor, blocks: Blocks) -> Tensor | None:
    """Return one score per block of every tensor, or None where they are not what they must be."""
    scores: object = None
    # Asked about one target at a time, the algorithm fails again, and the error names the target.
    with suppress(Exception), torch.no_grad():
        scores = pruner.block_scores(stack, stacked_blocks(blocks))
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        return None
    size = (1, *blocks.size)
    if tuple(scores.shape) == count_blocks(size, stack.shape):
        return scores
    return sum_blocks(scores, size) if scores.shape == stack.shape else None
