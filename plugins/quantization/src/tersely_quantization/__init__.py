"""The face of tersely-quantization: which algorithms there are; imports no torch."""

from __future__ import annotations

import tersely
from tersely_quantization.one_shot import SWITCH, one_shot_quantizers
from tersely_quantization.schemas import (
    DECAY,
    LEARNING_RATE,
    SEED,
    STEPS,
    options,
    with_observer,
)

tersely_api = 1


@tersely.hookimpl
def tersely_quantizers() -> list[tersely.QuantizerInfo]:
    """Return the quantization algorithms of this distribution."""
    return [
        tersely.QuantizerInfo(
            name="ptq",
            implementation="tersely_quantization.ptq:PostTraining",
            needs="activations",
            options=with_observer(options(bias_correction=SWITCH)),
            summary="Post-training: scale and zero point from the observed range.",
            paper="Jacob et al., CVPR 2018",
        ),
        tersely.QuantizerInfo(
            name="qat",
            implementation="tersely_quantization.qat:QuantizationAware",
            needs="training",
            options=options(
                decay=DECAY,
                quant_start_step=STEPS,
                freeze_step={"type": ["integer", "null"], "minimum": 0},
            ),
            summary="Quantization-aware training: ranges follow the values during training.",
            paper="Jacob et al., CVPR 2018",
        ),
        tersely.QuantizerInfo(
            name="lsq",
            implementation="tersely_quantization.lsq:LearnedStepSize",
            needs="training",
            options=with_observer(
                options(
                    initial_scale={"type": ["number", "null"], "exclusiveMinimum": 0},
                    learning_rate=LEARNING_RATE,
                )
            ),
            summary="Learns scales by gradients during training.",
            paper="Esser et al., Learned Step Size Quantization, ICLR 2020",
        ),
        tersely.QuantizerInfo(
            name="lsq_plus",
            implementation="tersely_quantization.lsq_plus:LearnedStepAndOffset",
            needs="training",
            options=with_observer(options(learning_rate=LEARNING_RATE)),
            summary="Learns scales, and zero points of the affine scheme, during training.",
            paper="Bhalgat et al., LSQ+, CVPR workshop 2020",
        ),
        tersely.QuantizerInfo(
            name="dorefa",
            implementation="tersely_quantization.dorefa:DoReFa",
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
        tersely.QuantizerInfo(
            name="bnn",
            implementation="tersely_quantization.bnn:Binarized",
            needs="training",
            target_kinds=("parameter", "input", "output"),
            granularities=(),
            summary="Values become +1 or -1.",
            paper="Hubara et al., Binarized Neural Networks, NeurIPS 2016",
        ),
        *one_shot_quantizers(),
    ]
