"""Binarized neural networks: every value is replaced by its sign."""

from __future__ import annotations

import torch
from torch import Tensor

import tersely
from tersely.contracts import ChangesAfterStep, Simulates
from tersely_quantization.learning.straight_through import straight_through


class Binarized(Simulates, ChangesAfterStep):
    """Replaces values by +1 or -1, with +1 for zero; parameters stay within [-1, 1].

    Courbariaux et al. and Hubara et al., Binarized Neural Networks, NeurIPS 2016, section 1:
    gradients pass the sign of a parameter unchanged (parameters are clamped after each step), and
    that of an input or output where the magnitude is at most 1. The dtype and the scheme of the
    config are not used: integers are stored as ``int2``.
    """

    def choose(
        self, low: Tensor, high: Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        """Return scale 1 and the middle of the integers, for any range.

        Args:
            low: shape (blocks along each dimension), float, the smallest value seen.
            high: the same shape, the largest value seen.
            target: the tensor to quantize.
        """
        qparams = tersely.choose_qparams(low, high, target)
        middle = (target.quant_max + target.quant_min + 1) // 2
        return qparams.evolve(
            scale=torch.ones_like(qparams.scale),
            zero_point=torch.full_like(qparams.zero_point, middle),
        )

    def simulate(
        self, value: Tensor, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> Tensor:
        """Return the signs.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: the result of `choose`.
            target: the target.
        """
        surrogate = value if is_weight(target) else value.clamp(-1, 1)
        return straight_through(surrogate, signs(value.detach()))

    def integers(
        self, value: Tensor, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> tuple[Tensor, tersely.QParams]:
        """Return the signs as ``int2``.

        Args:
            value: the tensor, masked.
            qparams: the result of `choose`.
            target: the target.
        """
        read = qparams.evolve(
            scale=torch.ones_like(qparams.scale),
            zero_point=torch.zeros_like(qparams.zero_point),
            quant_min=-1,
            quant_max=1,
            dtype="int2",
            scheme="symmetric",
        )
        return signs(value.detach()).to(torch.int32), read

    def after_step(self, tensor: Tensor, target: tersely.QuantizationTarget) -> None:
        """Clamp a parameter to [-1, 1] after the optimizer's step.

        Args:
            tensor: the raw parameter, changed in place.
            target: the target.
        """
        tensor.clamp_(-1, 1)


def signs(value: Tensor) -> Tensor:
    """Return +1 where a value is at least 0 and -1 elsewhere.

    Args:
        value: any shape, float.
    """
    return torch.where(value >= 0, 1.0, -1.0).to(value.dtype)


def is_weight(target: tersely.QuantizationTarget) -> bool:
    """Tell whether a target is a parameter or buffer rather than an input or output."""
    return target.plan.kind in ("parameter", "buffer")
