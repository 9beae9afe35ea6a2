"""Taylor pruning: weights whose removal changes the loss least are pruned first.

Molchanov, Mallya, Tyree, Frosio and Kautz, Importance Estimation for Neural Network Pruning,
CVPR 2019, section 3.1: the first-order estimate of the change in squared loss, summed over the
weights of a unit, I_S = sum over s in S of (g_s w_s)^2, averaged over optimizer steps.
"""

from __future__ import annotations

from torch import Tensor

import tersely
from tersely.contracts import ObservesGradients
from tersely_pruning.per_block import score_dtype, sums_of


class Taylor(ObservesGradients):
    """Ranks by the squared products of weights and gradients, by default of output channels.

    Departs from the paper: all steps since the last masks count, a block may be any group of
    weights, and there is no moving average over pruning iterations.
    """

    def observe_gradient(
        self, gradient: Tensor, target: tersely.PruningTarget
    ) -> dict[str, Tensor]:
        """Return what one optimizer step adds to the importance.

        Args:
            gradient: the target's shape, loss units per weight unit.
            target: the target with the values that the gradient belongs to.

        Returns:
            ``squares``: shape (blocks along each dimension), float, squared loss units;
            ``steps``: 0-dim, 1.
        """
        dtype = score_dtype(target.tensor)
        product = target.tensor.to(dtype) * gradient.to(dtype)
        squares = sums_of(product.square_(), target.blocks)
        return {"squares": squares, "steps": squares.new_ones(())}

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return the mean over steps of the squared products, summed over every block.

        Args:
            target: the tensor to rank.

        Returns:
            Shape (blocks along each dimension), float, squared loss units.

        Raises:
            SessionError: no step was observed.
        """
        if not target.observed:
            raise tersely.SessionError(
                f"{target.name}: taylor ranks by gradients and has seen none; train some steps "
                "with session.step() after optimizer.step() before session.compress(), or give "
                "the stage a schedule",
                **target.plan.place,
            )
        return target.observed["squares"] / target.observed["steps"]
