"""A target as the budget code sees it: importances per block, and the limits the config sets."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TypeAlias

import attrs
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, block_numel, count_blocks
from tersely.arithmetic.numbered import uneven_sizes
from tersely.contracts.settings import DEFAULT_BUDGET, Budget

Ratio: TypeAlias = float | Fraction


@attrs.frozen(kw_only=True, eq=False)
class Member:
    """One target that is ranked by an importance of its own.

    Attributes:
        name: the target's full name, for errors.
        importance: shape (blocks along each dimension), float, larger means keep; read only
            unless it is expendable.
        shape: the target's full shape.
        blocks: which elements share a decision. With ``keep`` set, that number alone decides.
        ratio: the share of blocks to mask, or None; of elements where blocks differ in size, as
            for the bounds.
        threshold: blocks of lower importance are masked, or None.
        minimum: the share of blocks that is masked at least.
        maximum: the share of blocks that is masked at most.
        global_group: id of the group that shares one budget, or None.
        dependency_group: id of the group that shares one decision, or None.
        budget: what the ratio of the global group counts.
        internal_blocks: number of equal runs in which the ratio is met, or None.
        parts: equal parts of the blocks, of which block i of all shares one decision.
        algorithm: what ranked it, for errors.
        is_expendable: whether nobody else reads the importance, so that the decision may take its
            place in memory.
    """

    name: str
    importance: Tensor
    shape: tuple[int, ...] = attrs.field(converter=tuple)
    blocks: Blocks
    ratio: Ratio | None = None
    threshold: float | None = None
    minimum: Ratio = 0
    maximum: Ratio = 1
    global_group: str | int | None = None
    dependency_group: str | int | None = None
    budget: Budget = DEFAULT_BUDGET
    internal_blocks: int | None = None
    parts: int = 1
    algorithm: str = ""
    is_expendable: bool = False

    def __attrs_post_init__(self) -> None:
        expected = count_blocks(self.blocks.size, self.shape)
        if tuple(self.importance.shape) != expected:
            raise ValueError(
                f"{self.name}: expected one importance per block, shape {expected}, got "
                f"{tuple(self.importance.shape)}"
            )

    @property
    def decisions(self) -> int:
        """How many decisions are taken for it."""
        return self.importance.numel() // self.parts

    @property
    def runs(self) -> int:
        """In how many runs of decisions the ratio is met; those that parts repeat count once."""
        runs = self.internal_blocks or 1
        return runs // math.gcd(runs, self.parts)

    @property
    def weight(self) -> int:
        """Elements that one decision masks, where all mask equally many."""
        return block_numel(self.blocks.size, self.shape) * self.parts

    @property
    def weights(self) -> Tensor | None:
        """Elements that each decision masks where that differs, shape (decisions,), int64."""
        sizes = uneven_sizes(self.blocks.size)
        return None if sizes is None else sizes.reshape(self.parts, -1).sum(0)
