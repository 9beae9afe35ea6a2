"""Kullback-Leibler divergence between softened distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.classes import class_rows


def kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 2.0,
    dim: int = -1,
    mask: Tensor | None = None,
) -> Tensor:
    """Return how far the student's softened distribution is from the teacher's.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2: softmax of
    logits / T over the classes, times T squared so that gradients keep their size when T changes.
    The sum is divided by the length of dimension 0, as the specification says, so for (batch,
    tokens, classes) it is a sum over tokens; with a mask it is divided by the number of positions
    that are left.

    Args:
        student: logits, shape (batch, ..., classes) unless ``dim`` states otherwise, float.
        teacher: logits, the student's shape, float.
        temperature: above 0, divides both logits.
        dim: the dimension that holds classes.
        mask: None, or the logits' shape without classes: positions that are 0 are left out.

    Returns:
        0-dim, float32 or float64, nats times temperature squared per sample.

    Raises:
        ValueError: the shapes differ, or the logits have no batch dimension or none for classes.
    """
    student, teacher, count = class_rows("kl", student, teacher, dim=dim, mask=mask, rank=1)
    divergence = torch.nn.functional.kl_div(
        (student / temperature).log_softmax(dim=-1),
        (teacher / temperature).softmax(dim=-1),
        reduction="sum",
    )
    return divergence / count * temperature**2
