"""What a pruning stage decides, from what its algorithm has gathered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.blocks import count_blocks
from tersely.calibration.statistic import Statistic
from tersely.contracts.curvature import ObservesCurvature
from tersely.contracts.pruner import (
    Learns,
    MakesNewScores,
    ObservesGradients,
    Pruner,
    PruningTarget,
    Solution,
    Solves,
)
from tersely.contracts.regrowing import ObservesDenseGradients
from tersely.contracts.whole_model import ScoresModel, WholeModel
from tersely.engine.observation.sums import is_blank, over_processes
from tersely.engine.progress import with_progress
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionError
from tersely.pruning.magnitudes import magnitudes, magnitudes_by_output, ranked_by_magnitude
from tersely.pruning.mask_buffers import compact, mask_of
from tersely.pruning.ordering import in_own_order, meaningful, order_of
from tersely.pruning.ranking import Ranked, importance_of, member_of, rank, split, target_of
from tersely.pruning.run import OBSERVES_TRAINING, Factor, PruningRun
from tersely.pruning.scoring_blocks import decide_by_blocks
from tersely.pruning.solving import solve
from tersely.pruning.stacking import CountsMasks, decide_masks
from tersely.pruning.whole_model import KnownScores, score_model

_RANKS_ALL_EXPERTS = (Learns, *OBSERVES_TRAINING, KnownScores)


@attrs.frozen(eq=False)
class Decision:
    """New masks, and new values where an algorithm changes weights.

    Attributes:
        kept: bool, or 0 and 1 in the target's dtype, True = kept, in the smallest shape that
            broadcasts to the target.
        values: new raw values, the target's shape.
        orders: the order of input channels in which blocks and patterns hold, int64.
        from_zero: targets of which the elements that were masked so far and are kept now are zero.
    """

    kept: dict[BoundTarget, Tensor] = attrs.field(factory=dict)
    values: dict[BoundTarget, Tensor] = attrs.field(factory=dict)
    orders: dict[BoundTarget, Tensor] = attrs.field(factory=dict)
    from_zero: set[BoundTarget] = attrs.field(factory=set)


def decide(
    run: PruningRun,
    statistics: Mapping[BoundTarget, Statistic],
    factor: Factor,
    *,
    bound_targets: Sequence[BoundTarget],
    count: CountsMasks | None = None,
    whole: WholeModel | None = None,
    progress: Fraction | None = None,
) -> Decision:
    """Decide on some of a stage's targets.

    Args:
        run: the stage.
        statistics: what calibration saw of inputs and outputs.
        factor: the share of the configured sparsity that is due now, in [0, 1].
        bound_targets: the targets.
        count: counts what masks remove, for ratios that are counted so.
        whole: the model, for an algorithm that scores all of it.
        progress: the share of the schedule's updates that have been made, or None.

    Raises:
        SessionError: something must be called first, and the text says what.
        CalibrationError: importances are not finite.
        PlanError: the tensors do not fit the plan after all.
        PluginError: the algorithm returned something of a wrong shape.
    """
    if factor == 0:
        return _keep_everything(bound_targets)
    if run.stage.unreached == "dense":
        dense = [one for one in bound_targets if _is_unreached(run, one)]
        if dense:
            rest = [one for one in bound_targets if one not in set(dense)]
            decision = Decision()
            if rest:
                decision = decide(
                    run,
                    statistics,
                    factor,
                    bound_targets=rest,
                    count=count,
                    whole=whole,
                    progress=progress,
                )
            decision.kept.update(_keep_everything(dense).kept)
            return decision
    stages = run.binding.plan.recipe.stages
    by_blocks = decide_by_blocks(run, bound_targets, factor)
    ranked = [rank(one, statistics, stages) for one in bound_targets if one not in by_blocks]
    _need_observations(run, bound_targets)
    run.need_the_same_everywhere(bound_targets)
    # One at a time, so that nothing is held for all of a large model's targets.
    targets: Iterator[PruningTarget] = (
        target_of(
            one,
            observed=_observed(run, one.bound),
            learned=run.learned(one.bound),
            factor=factor,
            progress=progress,
        )
        for one in ranked
    )
    pruner = run.algorithm
    if isinstance(pruner, ScoresModel):
        assert whole is not None  # asked for only where there is one
        everything = list(targets)
        pruner, targets = score_model(pruner, whole, everything), iter(everything)
    if isinstance(pruner, Solves):
        return _solve_all(run, pruner, list(zip(ranked, targets, strict=True)), factor)
    with torch.no_grad():
        scores = []
        for place, target in enumerate(targets):
            order = order_of(run.algorithm, ranked[place], target)
            if order is not None:
                ranked[place] = attrs.evolve(ranked[place], order=order)
            scores.append(_importance(run, pruner, ranked[place], target))
    is_expendable = isinstance(pruner, MakesNewScores) and pruner.new_scores
    masks = decide_masks(ranked, scores, factor, is_expendable=is_expendable, count=count)
    orders = {one.bound: one.order for one in ranked if one.order is not None}
    for bound, order in orders.items():
        masks[bound] = in_own_order(masks[bound], order, bound.plan.input_dim)
    return Decision(by_blocks | masks, orders=orders)


def _solve_all(
    run: PruningRun,
    pruner: Solves,
    pairs: Sequence[tuple[Ranked, PruningTarget]],
    factor: Factor,
) -> Decision:
    decision = Decision()
    for one, target in with_progress(pairs, "weights solved"):
        parts = split(one, target) if target.plan.has_experts else [(one, target)]
        solutions = [_solved(run, pruner, *part, factor=factor) for part in parts]
        # Laid out like any other mask: a saved one comes back so, and kernels differ by layout.
        kept = [solution.kept.contiguous() for solution in solutions]
        values = [solution.tensor for solution in solutions]
        if target.plan.has_experts:
            kept = [torch.stack([one.broadcast_to(values[0].shape) for one in kept])]
            values = [torch.stack(values)]
        decision.kept[one.bound] = kept[0]
        order = meaningful(solutions[0].order)
        if order is not None:
            decision.orders[one.bound] = order
        if values[0] is not target.tensor:
            decision.values[one.bound] = values[0]
    return decision


def _solved(
    run: PruningRun, pruner: Solves, ranked: Ranked, target: PruningTarget, *, factor: Factor
) -> Solution:
    if not run.is_observing_modules or not is_blank(target.observed):
        is_by_element = set(ranked.blocks.size) == {1}
        scores = ranked.tensor if is_by_element else magnitudes(ranked)
        return solve(pruner, target, member_of(ranked, scores, factor))
    run.unranked.append(target.name)
    member = member_of(ranked, ranked.tensor, factor)
    own = magnitudes_by_output(ranked, member, output_dim=target.plan.output_dim)
    masks = decide_masks([ranked], [own], factor, is_expendable=True)
    return Solution(masks[ranked.bound], target.tensor)


def _importance(run: PruningRun, pruner: Pruner, ranked: Ranked, target: PruningTarget) -> Tensor:
    if target.plan.has_experts and not isinstance(pruner, _RANKS_ALL_EXPERTS):
        # What a plugin ranks among each other, rows or inputs, are those of one expert.
        parts = split(ranked, target)
        return torch.stack([_importance(run, pruner, *part) for part in parts])
    if not run.is_observing_modules or ranked.bound.is_activation:
        return importance_of(pruner, ranked, target)
    is_unseen_expert = target.plan.expert is not None and is_blank(target.observed)
    if not target.observed or is_unseen_expert:
        run.unranked.append(target.name)
        return magnitudes(ranked)
    scores, is_blank_somewhere = ranked_by_magnitude(importance_of(pruner, ranked, target), ranked)
    if is_blank_somewhere:
        run.unranked.append(target.name)
    return scores


def _is_unreached(run: PruningRun, bound: BoundTarget) -> bool:
    return bound in run.observed and not run.observed[bound]


def _keep_everything(bound_targets: Sequence[BoundTarget]) -> Decision:
    # Before the first update of a schedule there may be nothing to rank by yet.
    kept = {}
    for bound in bound_targets:
        blocks = bound.plan.blocks
        if blocks is None or bound.plan.shape is None:
            continue
        counts = count_blocks(blocks.size, bound.plan.shape)
        everything = torch.ones(counts, dtype=torch.bool, device=bound.raw.device)
        kept[bound] = compact(everything, blocks.size, bound.plan.shape)
    return Decision(kept)


def _observed(run: PruningRun, bound: BoundTarget) -> dict[str, Tensor]:
    found = run.observed.get(bound, {})
    # What calibration saw is summed up already; optimizer steps add to this process's sums.
    return (
        over_processes(found) if found and isinstance(run.algorithm, OBSERVES_TRAINING) else found
    )


def _need_observations(run: PruningRun, bound_targets: Sequence[BoundTarget]) -> None:
    missing = [bound for bound in bound_targets if bound not in run.observed]
    if isinstance(run.algorithm, ObservesDenseGradients):
        # What regrows begins with masks that nothing was observed for.
        missing = [bound for bound in missing if mask_of(bound) is not None]
    if not missing:
        return
    first = missing[0].plan
    if run.is_observing_modules:
        raise SessionError(
            f"{first.name} is ranked by what {first.algorithm} sees in calibration; call "
            "session.calibrate(batches) before session.compress()",
            **first.place,
        )
    if isinstance(run.algorithm, ObservesCurvature):
        raise SessionError(
            f"{first.name} is ranked by the curvature of the loss, and {first.algorithm} has seen "
            "none; train some steps with session.total_loss(loss) for the loss, then call "
            "session.compress()",
            **first.place,
        )
    if isinstance(run.algorithm, ObservesGradients):
        raise SessionError(
            f"{first.name} is ranked by gradients, and {first.algorithm} has seen none; train "
            "some steps with session.step() after optimizer.step(), then call session.compress()",
            **first.place,
        )
