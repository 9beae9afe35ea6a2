"""The face of laconic-distillation: which losses there are; imports no torch."""

from __future__ import annotations

import laconic

laconic_api = 1

_TEMPERATURE = {
    "type": "object",
    "properties": {
        "temperature": {
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 2.0,
            "description": "What both logits are divided by; higher softens the distributions.",
        }
    },
    "additionalProperties": False,
}


@laconic.hookimpl
def laconic_distillation_losses() -> list[laconic.LossInfo]:
    """Return the losses of this distribution."""
    return [
        laconic.LossInfo(
            name="mse",
            implementation="laconic_distillation.mse:mse",
            summary="Mean squared error, for hidden states.",
            paper="Romero et al., FitNets, ICLR 2015",
        ),
        laconic.LossInfo(
            name="kl",
            implementation="laconic_distillation.kl:kl",
            options=_TEMPERATURE,
            summary="Kullback-Leibler divergence of softened distributions, for logits.",
            paper="Hinton et al., Distilling the Knowledge in a Neural Network, 2015",
        ),
    ]
