"""Descriptors of algorithms that quantize weights in one shot; imports no torch."""

from __future__ import annotations

import tersely
from tersely_quantization.schemas import options

COUNT = {"type": "integer", "minimum": 1}
POSITIVE = {"type": "number", "exclusiveMinimum": 0}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
SWITCH = {"type": "boolean"}


def one_shot_quantizers() -> list[tersely.QuantizerInfo]:
    """Return the algorithms that solve for weights, and their baseline."""
    return [
        tersely.QuantizerInfo(
            name="rtn",
            implementation="tersely_quantization.rtn:RoundToNearest",
            needs="nothing",
            summary="Rounding to nearest without data; inputs and outputs by the batch at hand.",
            paper="Yao et al., ZeroQuant, NeurIPS 2022",
        ),
        tersely.QuantizerInfo(
            name="gptq",
            implementation="tersely_quantization.gptq:Gptq",
            options=options(
                percdamp={"type": "number", "minimum": 0},
                block_size=COUNT,
                act_order=SWITCH,
                search=SWITCH,
                sequential=SWITCH,
            ),
            needs="activations",
            summary="Rounding column by column; the remaining columns compensate for each error.",
            paper="Frantar et al., GPTQ, ICLR 2023",
        ),
        tersely.QuantizerInfo(
            name="awq",
            implementation="tersely_quantization.awq:Awq",
            options=options(grid=COUNT, clip=SWITCH, sequential=SWITCH),
            needs="activations",
            summary="Finer steps for the weights of large inputs; clipped ranges.",
            paper="Lin et al., AWQ, MLSys 2024",
        ),
        tersely.QuantizerInfo(
            name="adaround",
            implementation="tersely_quantization.adaround:AdaRound",
            options=options(
                iterations={"type": "integer", "minimum": 0},
                learning_rate=POSITIVE,
                warm_up=SHARE,
                regularization={"type": "number", "minimum": 0},
                sequential=SWITCH,
            ),
            needs="activations",
            summary="Rounding up or down, learned for each weight.",
            paper="Nagel et al., Up or Down?, ICML 2020",
        ),
        tersely.QuantizerInfo(
            name="smoothquant",
            implementation="tersely_quantization.smoothquant:SmoothQuant",
            options=options(alpha={"anyOf": [SHARE, {"const": "auto"}]}),
            needs="activations",
            summary="Moves the range of input channels into the weights.",
            paper="Xiao et al., SmoothQuant, ICML 2023",
        ),
    ]
