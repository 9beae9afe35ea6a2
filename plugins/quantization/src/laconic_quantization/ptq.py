"""Post-training quantization from the observed range."""

from __future__ import annotations

from torch import Tensor

import laconic
from laconic_quantization.bias_correction import InputMeans


class PostTraining:
    """Map the range that calibration saw onto the integers.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, equation 1. Departs from it where the
    specification does: signed types are symmetric and leave out their lowest integer.

    Args:
        bias_correction: whether biases make up for what rounding the weights shifts on average.
    """

    def __new__(cls, *, bias_correction: bool = False) -> PostTraining:
        """Make the quantizer that observes inputs where it has to.

        Args:
            bias_correction: see the class.
        """
        # An ability is there when its methods are, so what the option adds is a class of its own.
        return super().__new__(_BiasCorrecting if bias_correction else cls)

    def __init__(self, *, bias_correction: bool = False) -> None:
        pass

    def choose(
        self, low: Tensor, high: Tensor, target: laconic.QuantizationTarget
    ) -> laconic.QParams:
        """Return scale and zero point for an observed range.

        Args:
            low: shape (blocks along each dimension), float, the smallest value seen.
            high: the same shape, the largest value seen.
            target: the tensor to quantize.
        """
        return laconic.choose_qparams(low, high, target)


class _BiasCorrecting(InputMeans, PostTraining):
    """Post-training quantization that corrects biases."""
