"""Post-training quantization from the observed range."""

from __future__ import annotations

from torch import Tensor

import laconic


class PostTraining:
    """Map the range that calibration saw onto the integers.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, equation 1. Departs from it where the
    specification does: signed types are symmetric and leave out their lowest integer.
    """

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
