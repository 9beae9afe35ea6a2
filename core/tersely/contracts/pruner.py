"""Pruners, and their abilities to observe, learn, change weights and control growth.

An algorithm has an ability when it inherits from its class or lists its name in its descriptor
(see `tersely.contracts.abilities`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Protocol, runtime_checkable

import attrs
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.abilities import Ability, Sums
from tersely.contracts.target_plan import TargetPlan


def _nothing() -> None:
    """Return the mask before the first one, None."""


@attrs.frozen(kw_only=True, eq=False)
class PruningTarget:
    """One tensor to rank.

    Attributes:
        plan: the planned target.
        tensor: the values to rank, float, the target's shape. For a parameter or buffer, the raw
            tensor, owned by the module and read only. For an input or output, the mean absolute
            value over all samples of calibration, without the batch dimension.
        blocks: which elements share a decision.
        module: the module that owns the target.
        observed: the results of the algorithm's ``observe_...`` method, summed over batches or
            steps and over processes; empty if it has none.
        learned: the learned tensors of this target, by name; empty if there are none.
        due: the ratio that is due now, ``sparse_ratio`` times the schedule's share; None if a
            threshold or a pattern decides, or if nothing is being decided.
        progress: the share of the schedule's updates so far, including this one; None without a
            schedule, or if nothing is being decided.
    """

    plan: TargetPlan
    tensor: Tensor
    blocks: Blocks
    module: nn.Module
    observed: Mapping[str, Tensor] = attrs.field(factory=dict)
    learned: Mapping[str, Tensor] = attrs.field(factory=dict)
    due: float | Fraction | None = None
    progress: Fraction | None = None
    _in_force: Callable[[], Tensor | None] = attrs.field(default=_nothing, repr=False)

    @property
    def name(self) -> str:
        """The target's full name."""
        return self.plan.name

    @property
    def mask(self) -> Tensor | None:
        """The mask in force: bool, the tensor's shape, True = kept; None before the first one."""
        return self._in_force()


@runtime_checkable
class Pruner(Protocol):
    """A pruning algorithm."""

    def importance(self, target: PruningTarget) -> Tensor:
        """Return scores, larger means keep.

        Args:
            target: the tensor to rank, which must not be modified.

        Returns:
            Scores of the tensor's shape (summed over each block) or of the shape of its blocks.
        """
        ...


class ObservesGradients(Ability):
    """A pruner that needs gradients, observed whenever the user calls ``session.step()``."""

    @abstractmethod
    def observe_gradient(self, gradient: Tensor, target: PruningTarget) -> Sums:
        """Return the contribution of one optimizer step to the observation.

        Args:
            gradient: the target's shape, accumulated and unscaled, as the optimizer used it.
            target: the target; its ``tensor`` holds the values from before the optimizer step.
        """


class Learns(Ability):
    """A pruner that learns tensors for each target while the user trains."""

    @abstractmethod
    def start(self, target: PruningTarget) -> Mapping[str, Tensor]:
        """Return the initial values of learned tensors, float, by name.

        Args:
            target: the target, whose tensor may be on the meta device.
        """

    @abstractmethod
    def masked(self, value: Tensor, mask: Tensor | None, learned: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor that forward uses.

        Args:
            value: the raw parameter.
            mask: 1 kept and 0 masked, a shape that broadcasts to it; None before the first mask.
            learned: the learned tensors, which receive gradients through the result.
        """


@attrs.frozen(eq=False)
class Solution:
    """The result of a pruner that changes weights, for one target.

    Attributes:
        kept: bool, the target's shape, True = kept.
        tensor: the new values, the target's shape.
        order: shape (inputs,), int64, if blocks and patterns only hold in this order of the
            weight's input channels; ``kept`` and ``tensor`` are in the original order. None
            otherwise.
    """

    kept: Tensor
    tensor: Tensor
    order: Tensor | None = None


class Choose(Protocol):
    """Decides on some columns by the config's ratio, threshold or N:M."""

    def __call__(self, scores: Tensor) -> Tensor:
        """Return bool of the scores' shape, True = kept.

        Args:
            scores: shape (rows, columns), float, larger means keep; all rows of the weight, those
                of all groups of a convolution one after the other, and some of its columns.
        """
        ...


class Solves(Ability):
    """A pruner that changes the remaining weights to compensate for masked ones."""

    @abstractmethod
    def solve(self, target: PruningTarget, choose: Choose) -> Solution:
        """Return masks and new values.

        Args:
            target: the tensor to prune, which must not be modified.
            choose: decides on scores of all the weight's rows and some of its columns; call it
                once for each run of columns, so that every run meets the budget, or once for all.
        """


class Grows(Ability):
    """A pruner that defines the growth of its sparsity itself."""

    @abstractmethod
    def factor(self, steps: int) -> float | Fraction:
        """Return the share of the configured sparsity that is due after ``steps`` steps."""


class MakesNewScores(Ability):
    """A pruner whose ``importance`` returns a new tensor in every call and does not keep it.

    Masks are then created in the memory of its scores.

    Attributes:
        new_scores: False, for example by an option, if that does not hold.
    """

    new_scores: bool = True


class ScoresBlocks(Ability):
    """A pruner whose score of a block depends on nothing but the values in it.

    Small targets are then scored many at a time, stacked along a new first dimension of which every
    block has one. A class that overrides `importance` is asked about each target, as any other.
    """

    @abstractmethod
    def block_scores(self, tensor: Tensor, blocks: Blocks) -> Tensor:
        """Return scores, larger means keep.

        Args:
            tensor: any shape, float, which must not be modified.
            blocks: which of its elements share a decision.

        Returns:
            Scores of the tensor's shape (summed over each block) or of the shape of its blocks.
        """

    def importance(self, target: PruningTarget) -> Tensor:
        """Return the scores of one target.

        Args:
            target: the tensor to rank.
        """
        return self.block_scores(target.tensor, target.blocks)
