"""Similarity-preserving distillation: which samples activate a layer similarly."""

from __future__ import annotations

from torch import Tensor

from tersely_distillation.pairs import samples
from tersely_distillation.vectors import products, unit


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the similarities of all pairs of samples.

    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, equations 1 to 3: the
    inner products of a sample with all of its batch, scaled to length 1, are compared; the sum
    over pairs is divided by the square of the batch.

    Only the batches must agree, so student and teacher may differ in every other dimension.

    Args:
        student: shape (batch, ...), float; everything after the batch is one vector.
        teacher: shape (batch, ...), float.

    Returns:
        0-dim, float32 or float64, no unit. 0 for a batch of one sample.

    Raises:
        ValueError: there is no batch, or the batches differ.
    """
    student, teacher = samples("similarity_preserving", student, teacher)
    return (unit(products(student), 1) - unit(products(teacher), 1)).square().mean()
