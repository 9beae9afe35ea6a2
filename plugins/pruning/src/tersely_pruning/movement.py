"""Movement pruning: weights that training moves towards zero are pruned first.

Sanh, Wolf and Rush, Movement Pruning: Adaptive Sparsity by Fine-Tuning, NeurIPS 2020, section 4:
scores S learned through the mask with a straight-through gradient, dL/dS = dL/dW' * W. With
``sparse_ratio`` the lowest scores are masked; with ``sparse_threshold`` (soft movement pruning) a
block is masked where sigmoid(S) is below it, and sum sigmoid(S) is a penalty. Sparsity grows along
the cubic curve of Zhu and Gupta between a warm-up and a cool-down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

import tersely
from tersely.contracts import Grows, Learns, Optimizes, Penalizes
from tersely_pruning.agp import agp
from tersely_pruning.learned import initial_values, mean_of
from tersely_pruning.straight_through import mask_straight_through

RATIO_FORM, THRESHOLD_FORM = "score", "logit"
"""The name of a learned tensor tells whether it is a score or a logit."""


class Movement(Grows, Learns, Penalizes, Optimizes):
    """Ranks by scores that are learned through the mask, by default one for each output channel.

    Departs from the paper: the penalty is a mean over blocks and targets, not a sum, and grows
    along the same curve as the threshold; scores have an optimizer of their own.
    """

    def __init__(
        self,
        *,
        cooldown_begin_step: int,
        warmup_steps: int = 0,
        regular_scale: float = 1.0,
        learning_rate: float = 0.01,
    ) -> None:
        if cooldown_begin_step < warmup_steps:
            raise ValueError(
                f"cooldown_begin_step {cooldown_begin_step} is before the end of the warm-up, "
                f"warmup_steps {warmup_steps}; sparsity grows between the two"
            )
        self.warmup_steps = warmup_steps
        self.cooldown_begin_step = cooldown_begin_step
        self.regular_scale = regular_scale
        self.learning_rate = learning_rate

    def factor(self, steps: int) -> Fraction:
        """Return the share of the configured sparsity that is due.

        Args:
            steps: optimizer steps made so far.

        Returns:
            0 until the warm-up ends, then 1 - (1 - t)^3 for t from 0 to 1 at the cool-down.
        """
        if steps <= self.warmup_steps:
            return Fraction(0)
        if steps >= self.cooldown_begin_step:
            return Fraction(1)
        return agp(
            Fraction(steps - self.warmup_steps, self.cooldown_begin_step - self.warmup_steps)
        )

    def start(self, target: tersely.PruningTarget) -> dict[str, Tensor]:
        """Return a score of 0 for every block.

        Args:
            target: the target, whose tensor may be on the meta device.

        Returns:
            ``score``, or ``logit`` for a target with a threshold: shape (blocks along each
            dimension), float.
        """
        has_threshold = target.plan.pruning.sparse_threshold is not None
        return {THRESHOLD_FORM if has_threshold else RATIO_FORM: initial_values(target, 0.0)}

    def masked(self, value: Tensor, mask: Tensor | None, learned: Mapping[str, Tensor]) -> Tensor:
        """Return value * mask; the scores receive the gradient as if they were the mask.

        Args:
            value: the raw parameter.
            mask: 1 kept and 0 masked, a shape that broadcasts to it, or None.
            learned: the scores.
        """
        (scores,) = learned.values()
        return mask_straight_through(value, mask, scores)

    def penalty(self, learned: Sequence[Mapping[str, Tensor]], steps: int) -> Tensor:
        """Return regular_scale * factor(steps) * mean over targets of mean(sigmoid(logit)).

        Args:
            learned: the scores of every target; those with a ratio have no penalty.
            steps: optimizer steps made so far.

        Returns:
            0-dim, float.
        """
        gates = [one[THRESHOLD_FORM].sigmoid().mean() for one in learned if THRESHOLD_FORM in one]
        return self.regular_scale * float(self.factor(steps)) * mean_of(gates)

    def optimizer(self, tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return Adam over the scores.

        Args:
            tensors: all scores.
        """
        return torch.optim.Adam(tensors, lr=self.learning_rate)

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return the score of every block, or its sigmoid if the target has a threshold.

        Args:
            target: the tensor to rank.

        Returns:
            Shape (blocks along each dimension), float, no unit.
        """
        ((form, scores),) = target.learned.items()
        scores = scores.detach()
        return scores.sigmoid() if form == THRESHOLD_FORM else scores.clone()
