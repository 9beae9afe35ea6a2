"""Probabilistic knowledge transfer: the probabilities of samples to be neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import samples
from tersely_distillation.vectors import no_loss, off_diagonal, products, unit


def probabilistic(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the divergence between the teacher's and the student's neighbour probabilities.

    Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV
    2018, section 3. The similarity of two samples is (cosine + 1) / 2; divided by the sum over a
    sample's others it is the probability that they are neighbours; the Kullback-Leibler divergence
    compares the probabilities. Departs from the paper in the mean over samples in place of the
    sum, so that lambda does not depend on the batch.

    Only the batches must agree, so student and teacher may differ in every other dimension. With
    one or two samples the loss is 0, since the probabilities are fixed.

    Args:
        student: shape (batch, ...), float; everything after the batch is one vector.
        teacher: shape (batch, ...), float.

    Returns:
        0-dim, float32 or float64, nats per sample. A vector of zeros has the cosine 0 with all
        others and gets no gradient.

    Raises:
        ValueError: there is no batch, or the batches differ.
    """
    student, teacher = samples("probabilistic", student, teacher)
    if len(student) <= 1:
        return no_loss(student)
    ours, theirs = _log_probabilities(student), _log_probabilities(teacher)
    return (theirs.exp() * (theirs - ours)).sum() / len(student)


def _log_probabilities(rows: Tensor) -> Tensor:
    """Return for every row the logarithm of the probability of each other row."""
    similarities = off_diagonal((products(unit(rows, 1)) + 1) / 2)
    # Opposite vectors have a similarity of zero, or less after rounding.
    logarithms = (similarities.clamp_min(0) + torch.finfo(rows.dtype).eps).log()
    return logarithms.log_softmax(1)
