"""Quantization-aware training."""

from __future__ import annotations

from tersely.contracts import ClipsGradients, FollowsTraining
from tersely_quantization.mapped_range import MapsRange


class QuantizationAware(MapsRange, FollowsTraining, ClipsGradients):
    """Map the range that training sees onto the integers, again and again.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3: the core observes while the model
    trains and asks for new scales as the range moves, so the arithmetic is that of ``ptq``.

    Attributes:
        decay: the share of the old range that stays at each training forward.
        start_step: optimizer steps before values are quantized.
        freeze_step: optimizer steps after which ranges stay as they are, or None.

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
