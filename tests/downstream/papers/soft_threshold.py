"""Kusupati et al., Soft Threshold Weight Reparameterization for Learnable Sparsity (STR),
ICML 2020, equation 4: weights are shrunk by a threshold that each layer learns.

Departs from the paper in that a config's ratio decides how many weights are masked in the end;
with ``sparse_threshold: 0`` those are masked that the learned threshold makes zero.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

import tersely
from tersely.contracts import Learns, MakesNewScores


class SoftThreshold(Learns, MakesNewScores):
    """Forward uses ``sign(w) * relu(|w| - sigmoid(s))``.

    Args:
        initial: the initial s; sigmoid(-10) leaves the weights nearly as they are.
    """

    def __init__(self, *, initial: float = -10.0) -> None:
        self.initial = initial

    def start(self, target: tersely.PruningTarget) -> Mapping[str, Tensor]:
        return {"s": torch.full((), self.initial, device=target.tensor.device)}

    def masked(self, value: Tensor, mask: Tensor | None, learned: Mapping[str, Tensor]) -> Tensor:
        threshold = torch.sigmoid(learned["s"]).to(value.dtype)
        shrunk = value.sign() * torch.relu(value.abs() - threshold)
        return shrunk if mask is None else shrunk * mask

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        return target.tensor.detach().abs() - torch.sigmoid(target.learned["s"].detach())


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="soft_threshold",
            implementation="soft_threshold:SoftThreshold",
            summary="Weights are shrunk by a threshold that each target learns.",
            paper="Kusupati et al., STR, ICML 2020",
            target_kinds=("parameter",),
            options={
                "type": "object",
                "properties": {"initial": {"type": "number", "default": -10.0}},
                "additionalProperties": False,
                "examples": [{"initial": -5.0}],
            },
        )
    ]
