"""Network slimming: learn a factor for every channel, and prune channels with small factors.

Liu, Li, Shen, Huang, Yan and Zhang, Learning Efficient Convolutional Networks through Network
Slimming, ICCV 2017, equation 1: loss + lambda * sum over channels of |gamma|.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import tersely
from tersely.contracts import Learns, Optimizes, Penalizes
from tersely_pruning.learned import initial_values, mean_of
from tersely_pruning.per_block import spread

_FIRST = 1.0


class Slim(Learns, Penalizes, Optimizes):
    """Ranks by the magnitude of a learned factor, by default of every output channel.

    Departs from the paper: the factor is not the batch norm's own gamma but an additional number
    per block, initially 1, that multiplies the weight; so any layer can be slimmed, and slimming
    the weights of batch norms is the paper's method. The penalty is a mean over targets, not a sum.
    """

    def __init__(self, *, regular_scale: float = 1e-4, learning_rate: float = 0.01) -> None:
        self.regular_scale = regular_scale
        self.learning_rate = learning_rate

    def start(self, target: tersely.PruningTarget) -> dict[str, Tensor]:
        """Return a factor of 1 for every block.

        Args:
            target: the target, whose tensor may be on the meta device.

        Returns:
            ``factor``: shape (blocks along each dimension), float.
        """
        return {"factor": initial_values(target, _FIRST)}

    def masked(self, value: Tensor, mask: Tensor | None, learned: Mapping[str, Tensor]) -> Tensor:
        """Return value * factor * mask.

        Args:
            value: the raw parameter.
            mask: 1 kept and 0 masked, a shape that broadcasts to it, or None.
            learned: the factor, which receives gradients.
        """
        factor = spread(learned["factor"], value.shape).to(value.dtype)
        return value * factor if mask is None else value * (factor * mask)

    def penalty(self, learned: Sequence[Mapping[str, Tensor]], steps: int) -> Tensor:
        """Return regular_scale * mean over targets of the sum of |factor|.

        Args:
            learned: the factor of every target.
            steps: not used.

        Returns:
            0-dim, float.
        """
        return self.regular_scale * mean_of([one["factor"].abs().sum() for one in learned])

    def optimizer(self, tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return Adam over the factors.

        Args:
            tensors: all factors.
        """
        return torch.optim.Adam(tensors, lr=self.learning_rate)

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return the magnitude of every factor.

        Args:
            target: the tensor to rank.

        Returns:
            Shape (blocks along each dimension), float, no unit.

        Raises:
            SessionError: no factor has changed yet, so all channels would be equal.
        """
        factor = target.learned["factor"].detach()
        if factor.numel() and bool((factor == _FIRST).all()):
            raise tersely.SessionError(
                f"{target.name}: slim ranks by learned factors, and none has changed; train some "
                "steps with session.total_loss(...) and session.step() before "
                "session.compress(), or give the stage a schedule",
                **target.plan.place,
            )
        return factor.abs()
