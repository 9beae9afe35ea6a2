"""Small targets of one kind, decided together: a call costs more than what it computes.

One tensor with a row per target, in which each row is a scope of its own, asks the budget code for
the same decisions as the targets one after the other do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, is_broadcastable
from tersely.contracts.settings import Budget
from tersely.engine.targets.binding import BoundTarget
from tersely.masking.counted import Removal
from tersely.masking.decide import decide
from tersely.pruning.mask_buffers import compact
from tersely.pruning.ranking import Ranked, member_of

CountsMasks: TypeAlias = Callable[[Budget, Mapping[BoundTarget, Tensor]], Removal]
"""Counts what shrinking with masks of some targets removes; bool, broadcasts to the target."""

SMALL = 1 << 12
"""Up to this many blocks a target is stacked with others."""

FEW = 4
"""Fewer similar targets are decided one after the other."""

_AT_A_TIME = 1 << 20  # importances in one stack, so that it takes a few megabytes


@attrs.frozen(eq=False)
class Stack:
    """Targets that differ only in their importances.

    Attributes:
        ranked: the targets.
        importances: one score per block for each of them, shapes and dtypes alike.
    """

    ranked: tuple[Ranked, ...]
    importances: tuple[Tensor, ...]


def stacks_of(
    ranked: Sequence[Ranked], importances: Sequence[Tensor]
) -> tuple[list[Stack], list[int]]:
    """Find the targets that can be decided on together.

    Args:
        ranked: all targets of one stage.
        importances: one score per block for each of them.

    Returns:
        The stacks, and the positions of all other targets.
    """
    alike: dict[object, list[int]] = {}
    alone = []
    for index, (one, scores) in enumerate(zip(ranked, importances, strict=True)):
        setting = one.bound.plan.pruning
        is_divided = setting.internal_metric_block > 1 or setting.dependency_parts > 1
        is_numbered = one.blocks.index is not None
        if scores.numel() > SMALL or setting.is_grouped or is_divided or is_numbered:
            alone.append(index)
            continue
        # Equal targets share their setting and blocks.
        kind = (id(setting), id(one.blocks), one.tensor.shape)
        alike.setdefault((kind, scores.dtype, scores.device), []).append(index)
    stacks = []
    for indices in alike.values():
        if len(indices) < FEW or not importances[indices[0]].numel():
            alone += indices
            continue
        step = max(_AT_A_TIME // importances[indices[0]].numel(), 1)
        for start in range(0, len(indices), step):
            some = indices[start : start + step]
            stacks.append(
                Stack(
                    tuple(ranked[index] for index in some),
                    tuple(importances[index] for index in some),
                )
            )
    return stacks, sorted(alone)


def decide_stack(stack: Stack, factor: float | Fraction) -> dict[BoundTarget, Tensor] | None:
    """Decide on the targets of a stack.

    Args:
        stack: the targets.
        factor: the share of the configured sparsity that is due now, in [0, 1].

    Returns:
        For each target bool, True = kept, in the smallest shape that broadcasts to it; None when
        an importance is not finite, which has to be told of the target that it belongs to.
    """
    with torch.no_grad():  # once, and not a detach for each small target
        everything = torch.stack(stack.importances)
    if not bool(everything.isfinite().all()):
        return None
    first = stack.ranked[0]
    blocks = first.blocks
    scope = blocks.scope or (-1,) * len(blocks.size)
    member = attrs.evolve(
        member_of(first, stack.importances[0], factor),
        importance=everything,
        shape=(len(stack.ranked), *first.shape),  # type: ignore[arg-type]  # mypy misreads a converter that is a class
        blocks=Blocks((1, *blocks.size), (1, *scope), blocks.keep),
    )
    (kept,) = decide([member])
    rows = kept.unbind()
    if not is_broadcastable(blocks.size, first.shape):
        rows = tuple(compact(row, blocks.size, first.shape) for row in rows)
    return {one.bound: row for one, row in zip(stack.ranked, rows, strict=True)}


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
    found: dict[BoundTarget, Tensor] = {}
    stacks, alone = stacks_of(ranked, importances)
    for stack in stacks:
        decided = decide_stack(stack, factor)
        if decided is None:
            return _decide_alone(
                ranked, importances, factor, is_expendable=is_expendable, count=count
            )
        found.update(decided)
    rest = _decide_alone(
        [ranked[index] for index in alone],
        [importances[index] for index in alone],
        factor,
        is_expendable=is_expendable,
        count=count,
    )
    return {**found, **rest}


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
