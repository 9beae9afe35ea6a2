"""LSQ: the step size is learned together with the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import tersely
from tersely.contracts import ClipsGradients, LearnsScales, ObservesRange, Optimizes
from tersely_quantization.learning.learned_rounding import round_learned
from tersely_quantization.learning.relative_adam import RelativeAdam
from tersely_quantization.learning.straight_through import guarded
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.observers.by_name import make_observer
from tersely_quantization.observers.magnitudes import WithMagnitudes, mean_magnitude

SMALLEST_SCALE = torch.finfo(torch.float32).eps
LARGEST_SCALE = torch.finfo(torch.float32).max / 2**17
"""Finite when multiplied by any integer of up to 16 bits."""


class LearnedStepSize(MapsRange, ObservesRange, LearnsScales, Optimizes, ClipsGradients):
    """Learns the scale of every block by gradients; the zero point stays as chosen.

    Esser et al., Learned Step Size Quantization, ICLR 2020: scales start at
    2 * mean(abs(x)) / sqrt(quant_max) (section 2.1), of a parameter's own values or of the values
    in calibration. Departs from the paper: scales have an optimizer of their own, which changes
    them by fractions, so that one learning rate suits weights of any magnitude; a scale below the
    smallest usable one is replaced by it, with the same gradients.

    Args:
        initial_scale: the initial value of every scale instead, or None.
        learning_rate: that of the scales' optimizer: about the fraction by which a scale changes in
            one step.
        observer: the observer of inputs and outputs, for their zero points.
        observer_options: the observer's options.
    """

    def __init__(
        self,
        *,
        initial_scale: float | None = None,
        learning_rate: float = 1e-3,
        observer: str = "min_max",
        observer_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.initial_scale = initial_scale
        self.learning_rate = learning_rate
        self.observer_name = observer
        self.observer_options = dict(observer_options or {})

    def observer(self, target: tersely.QuantizationTarget) -> tersely.Observer:
        """Return the observer of one target's values, which also collects their magnitudes."""
        return WithMagnitudes(make_observer(self.observer_name, self.observer_options))

    def start(
        self, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> dict[str, Tensor]:
        """Return the initial scales.

        Args:
            qparams: the result of `choose`.
            target: the target with its statistics; a parameter's with its tensor.

        Returns:
            ``scale`` of the chosen scale's shape and dtype, value units per integer step.

        Raises:
            CalibrationError: no values of an input or output were observed.
        """
        if self.initial_scale is not None:
            return {"scale": torch.full_like(qparams.scale, self.initial_scale)}
        mean = mean_magnitude(target).to(qparams.scale).reshape(qparams.scale.shape)
        return {"scale": (2 * mean * target.quant_max**-0.5).clamp(min=SMALLEST_SCALE)}

    def meaning(self, qparams: tersely.QParams, learned: Mapping[str, Tensor]) -> tersely.QParams:
        """Return the chosen parameters with the learned scale.

        Args:
            qparams: the result of `choose`.
            learned: ``scale``, with the optimizer's values.
        """
        return qparams.evolve(scale=usable_scale(learned["scale"].detach(), qparams))

    def learned_values(
        self,
        value: Tensor,
        qparams: tersely.QParams,
        learned: Mapping[str, Tensor],
        target: tersely.QuantizationTarget,
    ) -> Tensor:
        """Return the fake-quantized values; gradients reach the scale.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: the result of `choose`.
            learned: ``scale``.
            target: the target.
        """
        scale = usable_scale(learned["scale"], qparams)
        return round_learned(value, scale, qparams.zero_point.to(scale.dtype), qparams)

    def optimizer(self, tensors: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return an Adam optimizer that changes each scale by fractions.

        Args:
            tensors: all scales.
        """
        return RelativeAdam(tensors, lr=self.learning_rate, floor=SMALLEST_SCALE)


def usable_scale(raw: Tensor, qparams: tersely.QParams) -> Tensor:
    """Return a learned scale, made positive and finite; gradients pass unchanged.

    Args:
        raw: the optimizer's value of the scale.
        qparams: the result of `choose`, whose scale replaces NaN.
    """
    return guarded(raw, qparams.scale, low=SMALLEST_SCALE, high=LARGEST_SCALE)
