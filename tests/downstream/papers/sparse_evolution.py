"""Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity
(SET), Nature Communications 2018, algorithm 1: drop the smallest weights, grow at random.

Departs from the paper in that it drops the smallest magnitudes of both signs together.
"""

import math
import zlib

import torch

import tersely
from tersely.contracts import RegrowsFromZero


class SparseEvolution(RegrowsFromZero):
    """Exchanges a share of the kept weights at each update.

    Args:
        share: of the kept weights that is exchanged, zeta in the paper.
        seed: what the random numbers start from.
    """

    def __init__(self, *, share: float = 0.3, seed: int = 0) -> None:
        self.share, self.seed = share, seed

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        # A saved session goes on with the same numbers: they follow from the target and the time.
        name = f"{self.seed} {target.name} {target.progress}"
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        chance = torch.rand(target.tensor.shape, generator=generator).to(target.tensor.device)
        if target.mask is None:
            return chance  # the first connections are random
        magnitude = target.tensor.detach().abs().float()
        kept = int(target.mask.sum())
        stays = kept - math.floor(self.share * kept)
        held = torch.where(target.mask, magnitude, -1).flatten()
        first = torch.zeros_like(held)
        first[held.argsort(descending=True, stable=True)[:stays]] = 2
        # What is dropped now may not come back at once, unless nothing else is left.
        return first.view_as(chance) + chance - target.mask.float()


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="sparse_evolution",
            implementation="sparse_evolution:SparseEvolution",
            summary="Drops the smallest weights and grows others at random.",
            paper="Mocanu et al., SET, Nature Communications 2018",
            target_kinds=("parameter",),
            options={
                "type": "object",
                "properties": {
                    "share": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.3},
                    "seed": {"type": "integer", "default": 0},
                },
                "additionalProperties": False,
                "examples": [{"share": 0.5}],
            },
        )
    ]
