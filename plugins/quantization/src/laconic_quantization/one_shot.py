"""Descriptors of the algorithms that quantize weights in one shot; imports no torch."""

from __future__ import annotations

import laconic
from laconic_quantization.schemas import options

COUNT = {"type": "integer", "minimum": 1}
POSITIVE = {"type": "number", "exclusiveMinimum": 0}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
SWITCH = {"type": "boolean"}


def one_shot_quantizers() -> list[laconic.QuantizerInfo]:
    """Return the algorithms that solve for weights, and the baseline that they have to beat."""
    return [
        laconic.QuantizerInfo(
            name="rtn",
            implementation="laconic_quantization.rtn:RoundToNearest",
            summary="Rounding to nearest without data; inputs and outputs by the batch at hand.",
            paper="Yao et al., ZeroQuant, NeurIPS 2022",
        ),
        laconic.QuantizerInfo(
            name="gptq",
            implementation="laconic_quantization.gptq:Gptq",
            options=options(
                percdamp={"type": "number", "minimum": 0},
                block_size=COUNT,
                act_order=SWITCH,
                search=SWITCH,
                sequential=SWITCH,
            ),
            needs="activations",
            summary="Rounding column by column; columns to come make up for each error.",
            paper="Frantar et al., GPTQ, ICLR 2023",
        ),
        laconic.QuantizerInfo(
            name="awq",
            implementation="laconic_quantization.awq:Awq",
            options=options(grid=COUNT, clip=SWITCH, sequential=SWITCH),
            needs="activations",
            summary="Finer steps for the weights of large inputs; clipped ranges.",
            paper="Lin et al., AWQ, MLSys 2024",
        ),
        laconic.QuantizerInfo(
            name="adaround",
            implementation="laconic_quantization.adaround:AdaRound",
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
        laconic.QuantizerInfo(
            name="smoothquant",
            implementation="laconic_quantization.smoothquant:SmoothQuant",
            options=options(alpha=SHARE),
            needs="activations",
            summary="Moves the range of input channels into the weights.",
            paper="Xiao et al., SmoothQuant, ICML 2023",
        ),
    ]
