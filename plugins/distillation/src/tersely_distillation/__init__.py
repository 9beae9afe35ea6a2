"""The face of tersely-distillation: which losses there are; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tersely

tersely_api = 1


def options(**properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a closed schema of options.

    Args:
        **properties: option -> its schema.
    """
    return {"type": "object", "properties": properties, "additionalProperties": False}


def weight(default: float, description: str) -> Mapping[str, Any]:
    """Return the schema of a factor of one part of a loss.

    Args:
        default: its default.
        description: its description.
    """
    return {"type": "number", "minimum": 0, "default": default, "description": description}


def temperature(default: float) -> Mapping[str, Any]:
    """Return the schema of a temperature.

    Args:
        default: its default.
    """
    return {
        "type": "number",
        "exclusiveMinimum": 0,
        "default": default,
        "description": "Divides both logits; higher values soften the distributions.",
    }


DIM = {
    "type": "integer",
    "default": -1,
    "description": "The dimension that holds classes: 1 for logits of (batch, classes, ...).",
}
MASK = {
    "type": ["string", "null"],
    "minLength": 1,
    "default": None,
    "description": "The model's input that is 0 at positions to leave out, as in attention_mask.",
}
LABELS = {
    "type": ["string", "integer", "null"],
    "minLength": 1,
    "default": None,
    "description": "The key of the labels in the batch; null for the teacher's first class.",
}
BETA = {
    "type": "number",
    "exclusiveMinimum": 0,
    "default": 1.0,
    "description": "The difference up to which errors are squared.",
}
POWER = {
    "type": "number",
    "minimum": 1,
    "default": 2.0,
    "description": "The power of activations; higher values emphasize the most active positions.",
}


@tersely.hookimpl
def tersely_distillation_losses() -> Sequence[tersely.LossInfo]:
    """Return the losses of this distribution."""
    return [
        tersely.LossInfo(
            name="mse",
            implementation="tersely_distillation.mse:mse",
            options=options(mask=MASK),
            input_options=("mask",),
            summary="Mean squared error, for hidden states.",
            paper="Romero et al., FitNets, ICLR 2015",
        ),
        tersely.LossInfo(
            name="hint",
            implementation="tersely_distillation.hint:hint",
            options=options(mask=MASK),
            input_options=("mask",),
            summary="Half the mean squared error, for hidden states after a projection.",
            paper="Romero et al., FitNets, ICLR 2015",
        ),
        tersely.LossInfo(
            name="l1",
            implementation="tersely_distillation.l1:l1",
            options=options(mask=MASK),
            input_options=("mask",),
            summary="Mean absolute error, for hidden states with outliers.",
            paper="Chang et al., DistilHuBERT, ICASSP 2022",
        ),
        tersely.LossInfo(
            name="smooth_l1",
            implementation="tersely_distillation.smooth_l1:smooth_l1",
            options=options(beta=BETA, mask=MASK),
            input_options=("mask",),
            summary="Squared error of small differences, absolute error of large ones.",
            paper="Girshick, Fast R-CNN, ICCV 2015",
        ),
        tersely.LossInfo(
            name="cosine",
            implementation="tersely_distillation.cosine:cosine",
            options=options(mask=MASK),
            input_options=("mask",),
            summary="One minus the cosine of feature vectors: their directions, not their lengths.",
            paper="Sanh et al., DistilBERT, NeurIPS workshop EMC2 2019",
        ),
        tersely.LossInfo(
            name="attention_transfer",
            implementation="tersely_distillation.attention_transfer:attention_transfer",
            options=options(power=POWER, mask=MASK),
            input_options=("mask",),
            summary="Where a layer is active, whatever its number of channels.",
            paper="Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017",
        ),
        tersely.LossInfo(
            name="similarity_preserving",
            implementation="tersely_distillation.similarity_preserving:similarity_preserving",
            summary="Which samples of the batch activate a layer similarly.",
            paper="Tung and Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019",
        ),
        tersely.LossInfo(
            name="relational",
            implementation="tersely_distillation.relational:relational",
            options=options(
                distance_weight=weight(1.0, "Factor of the distances of all pairs of samples."),
                angle_weight=weight(2.0, "Factor of the angles of all triangles of samples."),
            ),
            summary="Distances between the samples of the batch, and the angles they form.",
            paper="Park et al., Relational Knowledge Distillation, CVPR 2019",
        ),
        tersely.LossInfo(
            name="probabilistic",
            implementation="tersely_distillation.probabilistic:probabilistic",
            summary="The probabilities with which samples of the batch are neighbours.",
            paper="Passalis and Tefas, Probabilistic Knowledge Transfer, ECCV 2018",
        ),
        tersely.LossInfo(
            name="kl",
            implementation="tersely_distillation.kl:kl",
            options=options(temperature=temperature(2.0), dim=DIM, mask=MASK),
            input_options=("mask",),
            summary="Kullback-Leibler divergence of softened distributions, for logits.",
            paper="Hinton et al., Distilling the Knowledge in a Neural Network, 2015",
        ),
        tersely.LossInfo(
            name="decoupled_kl",
            implementation="tersely_distillation.decoupled_kl:decoupled_kl",
            options=options(
                alpha=weight(1.0, "Factor of the teacher's first class against all others."),
                beta=weight(8.0, "Factor of the other classes among themselves."),
                temperature=temperature(4.0),
                dim=DIM,
                mask=MASK,
                labels=LABELS,
            ),
            input_options=("mask",),
            batch_options=("labels",),
            summary="Divergence of the target class and of the other classes, weighted separately.",
            paper="Zhao et al., Decoupled Knowledge Distillation, CVPR 2022",
        ),
        tersely.LossInfo(
            name="correlation",
            implementation="tersely_distillation.correlation:correlation",
            options=options(
                beta=weight(1.0, "Factor of the relation between the classes of a sample."),
                gamma=weight(1.0, "Factor of the relation between the samples of a class."),
                temperature=temperature(1.0),
                dim=DIM,
                mask=MASK,
            ),
            input_options=("mask",),
            summary="One minus the correlation of probabilities, for much stronger teachers.",
            paper="Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022",
        ),
        tersely.LossInfo(
            name="activation_regularization",
            implementation=(
                "tersely_distillation.activation_regularization:activation_regularization"
            ),
            needs="nothing",
            summary="Mean square of the student's own activations; needs no teacher.",
            paper="Merity et al., Revisiting Activation Regularization, ICML workshop 2017",
        ),
    ]
