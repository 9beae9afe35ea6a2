"""Lee, Kim and Ham, Network Quantization with Element-wise Gradient Scaling (EWGS), CVPR 2021,
equation 3: a gradient grows where it moves a value away from its level, and shrinks otherwise.
"""

import torch
from torch import Tensor

import tersely
from tersely.contracts import Simulates


class ElementWise(Simulates):
    """Multiplies a gradient by ``1 + delta * sign(g) * (x - round(x))``, in units of the scale.

    Args:
        delta: how much the distance to the level counts; 0 is the straight-through estimator.
    """

    def __init__(self, *, delta: float = 0.2) -> None:
        self.delta = delta

    def simulate(
        self, value: Tensor, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> Tensor:
        found = tersely.fake_quantize(value.detach(), qparams)
        scale = qparams.scale
        if qparams.block_size is not None:
            scale = tersely.expand_blocks(scale, qparams.block_size, value.shape)
        distance = (value.detach() - found) / scale.to(value.dtype)
        return _Scaled.apply(value, found, self.delta * distance.clamp(-0.5, 0.5))

    def integers(
        self, value: Tensor, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> tuple[Tensor, tersely.QParams]:
        scale, zero_point = qparams.scale, qparams.zero_point
        if qparams.block_size is not None:
            scale = tersely.expand_blocks(scale, qparams.block_size, value.shape)
            zero_point = tersely.expand_blocks(zero_point, qparams.block_size, value.shape)
        found = tersely.fake_quantize(value.detach(), qparams)
        integers = (found.float() / scale).round() + zero_point
        return integers.to(torch.int32), qparams


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, found, factor):
        ctx.save_for_backward(factor)
        return found.clone()

    @staticmethod
    def backward(ctx, gradient):
        (factor,) = ctx.saved_tensors
        return gradient * (1 + gradient.sign() * factor), None, None


@tersely.hookimpl
def tersely_quantizers():
    return [
        tersely.QuantizerInfo(
            name="element_wise",
            implementation="element_wise:ElementWise",
            summary="Gradients that depend on the distance to the level.",
            paper="Lee, Kim and Ham, EWGS, CVPR 2021",
            options={
                "type": "object",
                "properties": {"delta": {"type": "number", "minimum": 0, "default": 0.2}},
                "additionalProperties": False,
                "examples": [{"delta": 0.01}],
            },
        )
    ]
