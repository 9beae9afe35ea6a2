"""Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning, 2018, equation 6:
the empirical Fisher information estimates what the loss gains from removing a weight.

Departs from the paper in that gradients are those of steps, means over a batch, not of samples.
"""

import torch

import tersely
from tersely.contracts import ObservesGradients


class Fisher(ObservesGradients):
    """Half the squared gradient times the squared weight, over steps."""

    def observe_gradient(self, gradient: torch.Tensor, target: tersely.PruningTarget):
        return {"information": gradient.float().square()}

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        return target.observed["information"] * target.tensor.detach().float().square() / 2


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="fisher",
            implementation="fisher:Fisher",
            summary="Squared gradient times squared weight, over steps.",
            paper="Theis et al., Fisher pruning, 2018",
            target_kinds=("parameter",),
            default_scope="global",
        )
    ]
