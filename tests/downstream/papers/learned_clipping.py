"""Shao et al., OmniQuant: Omnidirectionally Calibrated Quantization for Large Language Models,
ICLR 2024, equation 2: a share of each block's range, which is learned.

Departs from the paper in that the shares follow the user's loss in training, not the error of one
transformer block after another, and that no equivalent transformation is learned.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

import tersely
from tersely.contracts import LearnsScales


class LearnedClipping(LearnsScales):
    """The scale is ``sigmoid(gamma)`` times that of the whole range.

    Args:
        initial: the initial gamma; sigmoid(4) is 0.982.
    """

    def __init__(self, *, initial: float = 4.0) -> None:
        self.initial = initial

    def start(
        self, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> Mapping[str, Tensor]:
        return {"gamma": torch.full_like(qparams.scale, self.initial)}

    def meaning(self, qparams: tersely.QParams, learned: Mapping[str, Tensor]) -> tersely.QParams:
        return qparams.evolve(scale=_scale(qparams, learned["gamma"].detach()))

    def learned_values(
        self,
        value: Tensor,
        qparams: tersely.QParams,
        learned: Mapping[str, Tensor],
        target: tersely.QuantizationTarget,
    ) -> Tensor:
        scale, zero_point = _scale(qparams, learned["gamma"]), qparams.zero_point
        if qparams.block_size is not None:
            scale = tersely.expand_blocks(scale, qparams.block_size, value.shape)
            zero_point = tersely.expand_blocks(zero_point, qparams.block_size, value.shape)
        position = value.float() / scale
        rounded = position + (position.round() - position).detach()
        integers = (rounded + zero_point).clamp(qparams.quant_min, qparams.quant_max)
        return ((integers - zero_point) * scale).to(value.dtype)


def _scale(qparams: tersely.QParams, gamma: Tensor) -> Tensor:
    return (qparams.scale * torch.sigmoid(gamma.clamp(-20, 20))).clamp_min(1e-12)


@tersely.hookimpl
def tersely_quantizers():
    return [
        tersely.QuantizerInfo(
            name="learned_clipping",
            implementation="learned_clipping:LearnedClipping",
            summary="A learned share of each block's range.",
            paper="Shao et al., OmniQuant, ICLR 2024",
            options={
                "type": "object",
                "properties": {"initial": {"type": "number", "default": 4.0}},
                "additionalProperties": False,
                "examples": [{"initial": 2.0}],
            },
        )
    ]
