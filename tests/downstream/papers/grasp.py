"""Wang, Zhang and Grosse, Picking Winning Tickets Before Training by Preserving Gradient Flow,
ICLR 2020, algorithm 1: what its removal costs the flow of gradients.

Departs from the paper in that a schedule may ask for it again during training.
"""

import torch

import tersely
from tersely.contracts import Curvature, ObservesCurvature


class Grasp(ObservesCurvature):
    """Scores ``theta * Hg``: removing the weight changes the norm of the gradient by as much."""

    only_when_due = True

    def observe_curvature(self, curvature: Curvature, targets):
        products = curvature.times([one.detach() for one in curvature.gradients])
        return [
            {"flow": parameter.detach() * product}
            for parameter, product in zip(curvature.parameters, products, strict=True)
        ]

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        return target.observed["flow"]


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="grasp",
            implementation="grasp:Grasp",
            summary="What the removal of a weight costs the flow of gradients.",
            paper="Wang, Zhang and Grosse, GraSP, ICLR 2020",
            target_kinds=("parameter",),
            default_scope="global",
        )
    ]
