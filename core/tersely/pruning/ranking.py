"""Computing masks: importances from the algorithms, decisions from the budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial

import attrs
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, count_blocks, sum_blocks
from tersely.calibration.statistic import Statistic
from tersely.contracts.experts import of_expert
from tersely.contracts.pruner import Pruner, PruningTarget
from tersely.document.recipe import Stage
from tersely.engine.isolation.foreign import ForeignCall, wrong_return
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import PlanError, SessionError
from tersely.masking.budgets import as_fraction
from tersely.masking.member import Member
from tersely.planning.stages.descriptors import descriptor_of
from tersely.planning.targets.granularity import divide
from tersely.planning.targets.pattern import pattern_problems
from tersely.pruning.mask_buffers import full_mask, is_kept, mask_of
from tersely.pruning.returned_values import check_scores


@attrs.frozen(eq=False)
class Ranked:
    """A target with the tensor that is ranked and the blocks it is cut into.

    Attributes:
        bound: the target.
        tensor: the raw parameter, or the statistic of an input or output.
        blocks: which elements share a decision.
        order: the order of input channels in which blocks are counted, shape (inputs,), int64, or
            None for their own.
    """

    bound: BoundTarget
    tensor: Tensor
    blocks: Blocks
    order: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The ranked tensor's shape."""
        return tuple(self.tensor.shape)

    def ordered(self, values: Tensor) -> Tensor:
        """Return values of each element, or of blocks of one input each, in the blocks' order.

        Args:
            values: their input channels are in the target's own order.
        """
        if self.order is None:
            return values
        return values.index_select(self.bound.plan.input_dim, self.order.to(values.device))


def rank(
    bound: BoundTarget, statistics: Mapping[BoundTarget, Statistic], stages: Sequence[Stage]
) -> Ranked:
    """Return what is ranked for one target.

    Args:
        bound: a target without align.
        statistics: what calibration saw of inputs and outputs.
        stages: the recipe's stages.

    Raises:
        SessionError: an input or output was not calibrated.
        PlanError: its granularity does not divide the shape that calibration saw, or other keys
            contradict it.
    """
    if not bound.is_activation:
        if bound.plan.blocks is None:
            raise SessionError(f"{bound.plan.name} has no blocks; plan again", **bound.plan.place)
        return Ranked(bound, bound.dense(), bound.plan.blocks)
    statistic = statistics.get(bound)
    if statistic is None:
        raise SessionError(
            f"{bound.plan.name} is ranked by what calibration sees of it; call "
            "session.calibrate(batches) before session.compress()",
            **bound.plan.place,
        )
    mean = statistic.mean()
    if statistic.channel_dim is not None:
        return Ranked(bound, mean, Blocks((1,)))
    info = descriptor_of(stages[bound.plan.stage])
    if info is None:
        raise SessionError(f"{bound.plan.name} has no algorithm; plan again", **bound.plan.place)
    try:
        blocks = divide(bound.plan.pruning.granularity, bound.plan, (1, *mean.shape), info)
    except ValueError as error:
        raise PlanError(
            f"{bound.plan.origin.path}: {bound.plan.name}: {error}", **bound.plan.place
        ) from None
    problems = pattern_problems(bound.plan.pruning, blocks)
    if problems:
        where = f"{bound.plan.origin.path}: {bound.plan.name}"
        raise PlanError([f"{where}: {problem}" for problem in problems], **bound.plan.place)
    if blocks.index is not None:
        return Ranked(bound, mean, Blocks(index=blocks.index[0]))
    scope = None if blocks.scope is None else blocks.scope[1:]
    return Ranked(bound, mean, Blocks(blocks.size[1:], scope, blocks.keep))


def target_of(
    ranked: Ranked,
    *,
    observed: Mapping[str, Tensor] | None = None,
    learned: Mapping[str, Tensor] | None = None,
    factor: float | Fraction | None = None,
    progress: Fraction | None = None,
) -> PruningTarget:
    """Return a target as its algorithm sees it.

    Args:
        ranked: the target.
        observed: what the algorithm observed of it.
        learned: what the algorithm learned for it.
        factor: the share of the configured sparsity that is due now, or None where nothing is
            decided.
        progress: the share of the schedule's updates that have been made, or None.
    """
    ratio = ranked.bound.plan.pruning.sparse_ratio
    return PruningTarget(
        plan=ranked.bound.plan,
        tensor=ranked.tensor,
        blocks=ranked.blocks,
        module=ranked.bound.module,
        observed=observed or {},
        learned=learned or {},
        due=None if ratio is None or factor is None else _due(ratio, factor),
        progress=progress,
        in_force=partial(_mask_in_force, ranked),
    )


def _mask_in_force(ranked: Ranked) -> Tensor | None:
    mask = mask_of(ranked.bound)
    if mask is None:
        return None
    return full_mask(ranked.bound, is_kept(ranked.bound, mask), ranked.shape)


def split(ranked: Ranked, target: PruningTarget) -> list[tuple[Ranked, PruningTarget]]:
    """Return each expert's tensor of a parameter that stacks them, ranked and as a target.

    Args:
        ranked: the parameter.
        target: the same, as its algorithm sees it.
    """
    parts = [of_expert(target, expert) for expert in range(len(target.tensor))]
    return [(Ranked(ranked.bound, part.tensor, part.blocks), part) for part in parts]


def importance_of(pruner: Pruner, ranked: Ranked, target: PruningTarget) -> Tensor:
    """Ask an algorithm for a target's scores, checked and reduced to one per block.

    Called under ``torch.no_grad()``, which costs as much as the scores of a small target.

    Args:
        pruner: the algorithm.
        ranked: the target.
        target: the target as the algorithm sees it.

    Raises:
        PluginError: the algorithm failed, or its scores have a shape that is neither the tensor's
            nor its blocks'.
    """
    algorithm, name = ranked.bound.plan.algorithm, target.plan.name
    with ForeignCall(f"{algorithm} failed on {name}", plugin=algorithm, target=name):
        scores = pruner.importance(target)
    scores = check_scores(scores, target)
    shape, size = ranked.tensor.shape, ranked.blocks.size
    if scores.shape == shape and max(size, default=0) == min(size, default=0) == 1:
        return ranked.ordered(scores)
    counts = count_blocks(size, shape)
    # As many numbered blocks as elements of a vector: what is that long are scores of elements.
    if scores.shape == shape and ranked.blocks.index is not None:
        return sum_blocks(scores, size)
    if tuple(scores.shape) == counts and (ranked.order is None or is_of_single_inputs(ranked)):
        return ranked.ordered(scores)
    if scores.shape == shape:
        return sum_blocks(ranked.ordered(scores), size)
    raise wrong_return(
        target.plan,
        f"scores of shape {list(scores.shape)}",
        f"the tensor's shape {list(ranked.shape)} or one score per block, shape {list(counts)}",
    )


def is_of_single_inputs(ranked: Ranked) -> bool:
    """Tell whether every block of a parameter has one input channel.

    Args:
        ranked: the parameter.
    """
    return ranked.blocks.size[ranked.bound.plan.input_dim] == 1


def member_of(ranked: Ranked, importance: Tensor, factor: float | Fraction) -> Member:
    """Return a target as the budget code sees it.

    Args:
        ranked: the target.
        importance: one score per block.
        factor: the share of the configured sparsity that is due now, in [0, 1].
    """
    setting = ranked.bound.plan.pruning
    ratio, threshold = setting.sparse_ratio, setting.sparse_threshold
    return Member(
        name=ranked.bound.plan.name,
        algorithm=ranked.bound.plan.algorithm,
        importance=importance,
        shape=ranked.shape,  # type: ignore[arg-type]  # mypy misreads a converter that is a class
        blocks=ranked.blocks,
        ratio=None if ratio is None else _due(ratio, factor),
        threshold=None if threshold is None else threshold * min(float(factor), 1),
        minimum=_due(setting.min_sparse_ratio, factor),
        maximum=_due(setting.max_sparse_ratio, factor) if setting.max_sparse_ratio < 1 else 1,
        global_group=setting.global_group_id,
        dependency_group=setting.dependency_group_id,
        budget=setting.budget,
        internal_blocks=setting.internal_metric_block,
        parts=setting.dependency_parts,
    )


def _due(ratio: float, factor: float | Fraction) -> float | Fraction:
    # Exactly, so that a third of 0.3 is 0.1.
    return as_fraction(ratio) * as_fraction(factor) if factor < 1 else ratio
