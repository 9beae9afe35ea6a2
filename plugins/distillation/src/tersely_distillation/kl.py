"""Kullback-Leibler divergence between softened distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import pair


def kl(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Return how far the student's softened distribution is from the teacher's.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2: softmax of
    logits / T over the last dimension, times T squared so that gradients keep their size when T
    changes. The sum is divided by the length of dimension 0 alone, as the specification says, so
    a tensor of (batch, tokens, classes) counts the sum over its tokens.

    Args:
        student: logits, shape (batch, ..., classes), float.
        teacher: logits, the student's shape, float.
        temperature: above 0, divides both logits.

    Returns:
        0-dim, float32 or float64, nats times temperature squared per sample.

    Raises:
        ValueError: the shapes differ, or the logits have no batch dimension.
    """
    student, teacher = pair(
        "kl", student, teacher, of="logits of one shape (batch, ..., classes)", rank=1
    )
    divergence = torch.nn.functional.kl_div(
        (student / temperature).log_softmax(dim=-1),
        (teacher / temperature).softmax(dim=-1),
        reduction="batchmean",
    )
    return divergence * temperature**2
