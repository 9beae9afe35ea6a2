"""LSQ+: scale and zero point are learned together with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import tersely
from tersely.contracts import ClipsGradients, LearnsScales, ObservesRange, OptimizesByName
from tersely_quantization.learning.learned_rounding import FLOAT8, round_learned
from tersely_quantization.learning.relative_adam import RelativeAdam
from tersely_quantization.learning.straight_through import guarded, straight_through
from tersely_quantization.lsq import SMALLEST_SCALE, usable_scale
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.observers.by_name import make_observer

_DEVIATIONS = 3


class LearnedStepAndOffset(MapsRange, ObservesRange, LearnsScales, OptimizesByName, ClipsGradients):
    """Learns the scale of every block, and with the affine scheme also the zero point.

    Bhalgat et al., LSQ+: Improving low-bit quantization through learnable offsets and better
    initialization, CVPR workshop 2020. Scales of symmetric weights start at
    max(abs(mean - 3 std), abs(mean + 3 std)) / 2^(bits - 1) (section 3.2), everything else at the
    observed range. Departs from the paper: the offset is learned in integer steps and rounded
    before use, so that zero stays exact; scales have an optimizer of their own, which changes them
    by fractions.

    Args:
        learning_rate: that of the optimizer of scales and zero points: about the fraction by which
            a scale changes in one step, and the number of integer steps for a zero point.
        observer: the observer of inputs and outputs.
        observer_options: the observer's options.
    """

    def __init__(
        self,
        *,
        learning_rate: float = 1e-3,
        observer: str = "min_max",
        observer_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.observer_name = observer
        self.observer_options = dict(observer_options or {})

    def observer(self, target: tersely.QuantizationTarget) -> tersely.Observer:
        """Return the observer of one target's values."""
        return make_observer(self.observer_name, self.observer_options)

    def start(
        self, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> dict[str, Tensor]:
        """Return the initial scales and zero points.

        Args:
            qparams: the result of `choose`.
            target: the target; a parameter's with its tensor.

        Returns:
            ``scale``, value units per integer step, and with the affine scheme ``zero_point``,
            integer steps, both of the chosen scale's shape and dtype.
        """
        if target.scheme == "affine" and target.dtype not in FLOAT8:
            return {
                "scale": qparams.scale.clone(),
                "zero_point": qparams.zero_point.to(qparams.scale.dtype),
            }
        if target.tensor is None:
            return {"scale": qparams.scale.clone()}
        reach = tersely.reduce_blocks(target.tensor.detach(), target.blocks.size, _reach)
        bits = (target.quant_max - target.quant_min).bit_length()
        scale = (reach / 2 ** (bits - 1)).clamp(min=SMALLEST_SCALE)
        return {"scale": scale.to(qparams.scale).reshape(qparams.scale.shape)}

    def meaning(self, qparams: tersely.QParams, learned: Mapping[str, Tensor]) -> tersely.QParams:
        """Return the parameters that correspond to the learned tensors.

        Args:
            qparams: the result of `choose`.
            learned: ``scale`` and, if it is learned, ``zero_point``, with the optimizer's values.
        """
        scale = usable_scale(learned["scale"].detach(), qparams)
        if "zero_point" not in learned:
            return qparams.evolve(scale=scale)
        zero_point = _usable_zero_point(learned["zero_point"].detach(), qparams)
        return qparams.evolve(scale=scale, zero_point=zero_point.to(qparams.zero_point.dtype))

    def learned_values(
        self,
        value: Tensor,
        qparams: tersely.QParams,
        learned: Mapping[str, Tensor],
        target: tersely.QuantizationTarget,
    ) -> Tensor:
        """Return the fake-quantized values; gradients reach the learned tensors.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: the result of `choose`.
            learned: ``scale`` and, if it is learned, ``zero_point``.
            target: the target.
        """
        scale = usable_scale(learned["scale"], qparams)
        if "zero_point" in learned:
            zero_point = _usable_zero_point(learned["zero_point"], qparams)
        else:
            zero_point = qparams.zero_point.to(scale.dtype)
        return round_learned(value, scale, zero_point, qparams)

    def named_optimizer(self, tensors: Mapping[str, Sequence[Tensor]]) -> torch.optim.Optimizer:
        """Return an Adam optimizer that changes scales by fractions, and zero points by steps.

        Args:
            tensors: all scales under ``scale``, zero points under ``zero_point``.
        """
        groups = [
            {"params": list(some), "relative": name == "scale"} for name, some in tensors.items()
        ]
        return RelativeAdam(groups, lr=self.learning_rate, floor=SMALLEST_SCALE)


def _usable_zero_point(raw: Tensor, qparams: tersely.QParams) -> Tensor:
    # An integer in the range, as a float; gradients pass unchanged.
    inside = guarded(raw, qparams.zero_point, low=qparams.quant_min, high=qparams.quant_max)
    return straight_through(inside, inside.detach().round())


def _reach(blocks: Tensor, dim: int) -> Tensor:
    mean = blocks.mean(dim, dtype=torch.float64)
    deviation = blocks.double().std(dim, correction=0)
    return mean.abs() + _DEVIATIONS * deviation  # the larger of abs(mean -+ 3 std)
