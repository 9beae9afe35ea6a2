"""The face of laconic-quantization: which algorithms there are; imports no torch."""

from __future__ import annotations

import laconic
from laconic_quantization.one_shot import SWITCH, one_shot_quantizers, options

laconic_api = 1


@laconic.hookimpl
def laconic_quantizers() -> list[laconic.QuantizerInfo]:
    """Return the quantization algorithms of this distribution."""
    return [
        laconic.QuantizerInfo(
            name="ptq",
            implementation="laconic_quantization.ptq:PostTraining",
            options=options(bias_correction=SWITCH),
            needs="activations",
            summary="Post-training: scale and zero point from the observed range.",
            paper="Jacob et al., CVPR 2018",
        ),
        laconic.QuantizerInfo(
            name="qat",
            implementation="laconic_quantization.qat:QuantizationAware",
            needs="training",
            summary="Quantization-aware training: the range follows the values while training.",
            paper="Jacob et al., CVPR 2018",
        ),
        *one_shot_quantizers(),
    ]
