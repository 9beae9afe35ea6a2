"""The face of laconic-quantization: which algorithms there are; imports no torch."""

from __future__ import annotations

import laconic
from laconic_quantization.one_shot import SWITCH, one_shot_quantizers
from laconic_quantization.schemas import (
    DECAY,
    LEARNING_RATE,
    SEED,
    STEPS,
    options,
    with_observer,
)

laconic_api = 1


@laconic.hookimpl
def laconic_quantizers() -> list[laconic.QuantizerInfo]:
    """Return the quantization algorithms of this distribution."""
    return [
        laconic.QuantizerInfo(
            name="ptq",
            implementation="laconic_quantization.ptq:PostTraining",
            needs="activations",
            options=with_observer(options(bias_correction=SWITCH)),
            summary="Post-training: scale and zero point from the observed range.",
            paper="Jacob et al., CVPR 2018",
        ),
        laconic.QuantizerInfo(
            name="qat",
            implementation="laconic_quantization.qat:QuantizationAware",
            needs="training",
            options=options(
                decay=DECAY,
                quant_start_step=STEPS,
                freeze_step={"type": ["integer", "null"], "minimum": 0},
            ),
            summary="Quantization-aware training: the range follows the values while training.",
            paper="Jacob et al., CVPR 2018",
        ),
        laconic.QuantizerInfo(
            name="lsq",
            implementation="laconic_quantization.lsq:LearnedStepSize",
            needs="training",
            options=with_observer(
                options(
                    initial_scale={"type": ["number", "null"], "exclusiveMinimum": 0},
                    learning_rate=LEARNING_RATE,
                )
            ),
            summary="Learns scales by gradient while training.",
            paper="Esser et al., Learned Step Size Quantization, ICLR 2020",
        ),
        laconic.QuantizerInfo(
            name="lsq_plus",
            implementation="laconic_quantization.lsq_plus:LearnedStepAndOffset",
            needs="training",
            options=with_observer(options(learning_rate=LEARNING_RATE)),
            summary="Learns scales, and zero points of the affine scheme, while training.",
            paper="Bhalgat et al., LSQ+, CVPR workshop 2020",
        ),
        laconic.QuantizerInfo(
            name="dorefa",
            implementation="laconic_quantization.dorefa:DoReFa",
            needs="training",
            options=with_observer(
                options(
                    gradient_bits={"type": ["integer", "null"], "minimum": 1, "maximum": 16},
                    seed=SEED,
                )
            ),
            granularities=(),
            summary="Weights through tanh, outputs within [0, 1], a fixed step.",
            paper="Zhou et al., DoReFa-Net, arXiv 2016",
        ),
        laconic.QuantizerInfo(
            name="bnn",
            implementation="laconic_quantization.bnn:Binarized",
            needs="training",
            target_kinds=("parameter", "input", "output"),
            granularities=(),
            summary="Values become +1 or -1.",
            paper="Hubara et al., Binarized Neural Networks, NeurIPS 2016",
        ),
        *one_shot_quantizers(),
    ]
