"""Rouhani et al., Microscaling Data Formats for Deep Learning, 2023, algorithm 1: MXFP4, blocks of
32 elements of the type E2M1 that share a scale, which is a power of two.

Departs from the paper in that an exponent rounds up where the largest magnitude lies above the
largest level, so that nothing is clamped.
"""

import torch

import tersely
from tersely.contracts import UsesLevels

_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = (*(-one for one in reversed(_POSITIVE[1:])), *_POSITIVE)
"""The fifteen values of the type; zero has two spellings in it."""


class Microscaling(UsesLevels):
    """The smallest power of two with which the largest magnitude of a block is at most 6."""

    def choose(
        self, low: torch.Tensor, high: torch.Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        chosen = tersely.choose_qparams(low, high, target)
        if not target.has_levels:
            return chosen
        largest = torch.maximum(-low, high).clamp_min(2.0**-120).reshape(chosen.scale.shape)
        scale = torch.exp2(torch.ceil(torch.log2(largest / E2M1[-1])))
        return chosen.evolve(scale=scale, levels=torch.tensor(E2M1))


class MicroBlock:
    """Neighbours along the last dimension that share a scale.

    Args:
        length: how many.
    """

    def __init__(self, *, length: int = 32) -> None:
        self.length = length

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        return tersely.Blocks((*(1,) * (len(shape) - 1), self.length))


@tersely.hookimpl
def tersely_quantizers():
    return [
        tersely.QuantizerInfo(
            name="microscaling",
            implementation="microscaling:Microscaling",
            summary="E2M1 in blocks whose scale is a power of two.",
            paper="Rouhani et al., MX, 2023",
            target_kinds=("parameter",),
        )
    ]


@tersely.hookimpl
def tersely_granularities():
    return [
        tersely.GranularityInfo(
            name="micro_block",
            implementation="microscaling:MicroBlock",
            summary="Neighbours along the last dimension.",
            paper="Rouhani et al., MX, 2023",
            target_kinds=("parameter", "buffer"),
            options={
                "type": "object",
                "properties": {"length": {"type": "integer", "minimum": 1, "default": 32}},
                "additionalProperties": False,
                "examples": [{"length": 4}],
            },
        )
    ]
