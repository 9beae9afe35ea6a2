"""Quantization-aware training."""

from __future__ import annotations

from tersely.contracts import ClipsGradients, FollowsTraining
from tersely_quantization.mapped_range import MapsRange


class QuantizationAware(MapsRange, FollowsTraining, ClipsGradients):
    """Maps the range observed in training onto the integers, repeatedly.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3: the core observes while the model
    trains and asks for new scales as ranges change, so the arithmetic is that of ``ptq``.

    Attributes:
        decay: the weight of the old range at each training forward.
        start_step: the number of optimizer steps before values are quantized.
        freeze_step: the number of optimizer steps after which ranges no longer change, or None.

    Args:
        decay: as the attribute.
        quant_start_step: ``start_step``.
        freeze_step: as the attribute.
    """

    def __init__(
        self, *, decay: float = 0.99, quant_start_step: int = 0, freeze_step: int | None = None
    ) -> None:
        self.decay = decay
        self.start_step = quant_start_step
        self.freeze_step = freeze_step
