"""Rounding to nearest, without any data."""

from __future__ import annotations

from tersely.contracts import ChoosesPerCall
from tersely_quantization.mapped_range import MapsRange


class RoundToNearest(MapsRange, ChoosesPerCall):
    """Maps the range of each block of a weight onto the integers.

    The baseline of Yao et al., "ZeroQuant: Efficient and Affordable Post-Training Quantization for
    Large-Scale Transformers", NeurIPS 2022, section 3: weights by their own range, inputs and
    outputs by the range of each batch. Departs from the paper as the specification does: signed
    types do not use their lowest integer.

    Inputs and outputs are quantized by the range of the batch at hand.
    """
