"""Small targets of one kind, decided together: a call costs more than what it computes.

One tensor with a row per target, in which each row is a scope of its own, asks the budget code for
the same decisions as the targets one after the other do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

import attrs
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, is_broadcastable
from tersely.contracts.settings import Budget, PruningSetting
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.stacks import FEW, kinds_of, stacks_of
from tersely.masking.counted import Removal
from tersely.masking.decide import decide
from tersely.pruning.mask_buffers import compact
from tersely.pruning.ranking import Ranked, member_of

CountsMasks: TypeAlias = Callable[[Budget, Mapping[BoundTarget, Tensor]], Removal]
"""Counts what shrinking with masks of some targets removes; bool, broadcasts to the target."""


def decide_stacked(
    ranked: Sequence[Ranked], importances: Sequence[Tensor], factor: float | Fraction
) -> dict[BoundTarget, Tensor]:
    """Decide on the targets that differ in nothing but their importances, many at a time.

    Args:
        ranked: all targets of one stage.
        importances: one score per block for each of them.
        factor: the share of the configured sparsity that is due now, in [0, 1].

    Returns:
        For each such target bool, True = kept, in the smallest shape that broadcasts to it. Left
        out are those of which there are few, and those among which an importance is not finite,
        since an error has to name the target.
    """
    alike: dict[object, list[int]] = {}
    for position, one in enumerate(ranked):
        # Equal targets share their setting and blocks.
        key = (id(one.bound.plan.setting), id(one.blocks), one.tensor.shape)
        alike.setdefault(key, []).append(position)
    found: dict[BoundTarget, Tensor] = {}
    for positions in alike.values():
        if not is_stackable(ranked[positions[0]].bound.plan.pruning, ranked[positions[0]].blocks):
            continue
        scores = [importances[position] for position in positions]
        for same in kinds_of(scores)[0]:
            if len(same) < FEW:
                continue
            for some, stack in stacks_of(scores, same):
                members = [ranked[positions[one]] for one in some]
                targets = [one.bound for one in members]
                found.update(decide_rows(members[0], targets, stack, factor) or {})
    return found


def is_stackable(setting: PruningSetting, blocks: Blocks) -> bool:
    """Tell whether targets are decided on independently, each as one scope or several.

    Args:
        setting: the setting that they share.
        blocks: their blocks.
    """
    is_divided = setting.internal_metric_block > 1 or setting.dependency_parts > 1
    return not (setting.is_grouped or is_divided or blocks.index is not None)


def stacked_blocks(blocks: Blocks) -> Blocks:
    """Return the blocks of targets that are stacked along a new first dimension.

    Args:
        blocks: the blocks of each.
    """
    scope = blocks.scope or (-1,) * len(blocks.size)
    return Blocks((1, *blocks.size), (1, *scope), blocks.keep)


def decide_rows(
    first: Ranked,
    bound_targets: Sequence[BoundTarget],
    importances: Tensor,
    factor: float | Fraction,
) -> dict[BoundTarget, Tensor] | None:
    """Decide on targets that differ in nothing but their importances.

    Args:
        first: the first of them.
        bound_targets: all of them.
        importances: shape (targets, *blocks along each dimension), float.
        factor: the share of the configured sparsity that is due now, in [0, 1].

    Returns:
        For each target bool, True = kept, in the smallest shape that broadcasts to it; None when
        an importance is not finite.
    """
    # A finite sum proves that all are finite; an infinite one may be an overflow.
    if not bool(importances.sum().isfinite()) and not bool(importances.isfinite().all()):
        return None
    blocks = first.blocks
    member = attrs.evolve(
        member_of(first, importances[0], factor),
        importance=importances,
        shape=(len(bound_targets), *first.shape),  # type: ignore[arg-type]  # mypy misreads a converter that is a class
        blocks=stacked_blocks(blocks),
    )
    (kept,) = decide([member])
    rows = kept.unbind()
    if not is_broadcastable(blocks.size, first.shape):
        rows = tuple(compact(row, blocks.size, first.shape) for row in rows)
    return dict(zip(bound_targets, rows, strict=True))


def decide_masks(
    ranked: Sequence[Ranked],
    importances: Sequence[Tensor],
    factor: float | Fraction,
    *,
    is_expendable: bool,
    count: CountsMasks | None = None,
) -> dict[BoundTarget, Tensor]:
    """Decide on all ranked targets of one stage.

    Args:
        ranked: the targets.
        importances: one score per block for each of them.
        factor: the share of the configured sparsity that is due now, in [0, 1].
        is_expendable: whether decisions may take the place of the scores in memory.
        count: counts what masks remove, where a ratio is counted so.

    Returns:
        For each target bool, or 0 and 1, True = kept, in the smallest shape that broadcasts to it.
    """
    together = decide_stacked(ranked, importances, factor)
    alone = [position for position, one in enumerate(ranked) if one.bound not in together]
    rest = _decide_alone(
        [ranked[position] for position in alone],
        [importances[position] for position in alone],
        factor,
        is_expendable=is_expendable,
        count=count,
    )
    return {**together, **rest}


def _decide_alone(
    ranked: Sequence[Ranked],
    importances: Sequence[Tensor],
    factor: float | Fraction,
    *,
    is_expendable: bool,
    count: CountsMasks | None,
) -> dict[BoundTarget, Tensor]:
    members = [
        attrs.evolve(member_of(one, scores, factor), is_expendable=is_expendable)
        for one, scores in zip(ranked, importances, strict=True)
    ]

    def removal(budget: Budget, decided: Sequence[Tensor | None]) -> Removal:
        assert count is not None  # asked for only where there is one
        return count(budget, _masks_of(ranked, decided))

    kept = decide(members, count=None if count is None else removal)
    return _masks_of(ranked, kept)


def _masks_of(
    ranked: Sequence[Ranked], decided: Sequence[Tensor | None]
) -> dict[BoundTarget, Tensor]:
    return {
        one.bound: compact(kept, one.blocks.size, one.shape)
        for one, kept in zip(ranked, decided, strict=True)
        if kept is not None
    }
