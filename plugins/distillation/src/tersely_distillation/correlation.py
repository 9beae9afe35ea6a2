"""Distillation from a stronger teacher: predictions that correlate instead of coinciding."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.classes import class_rows
from tersely_distillation.vectors import unit


def correlation(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    dim: int = -1,
    mask: Tensor | None = None,
) -> Tensor:
    """Return how little the student's probabilities correlate with the teacher's.

    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022: one minus
    Pearson's correlation of softmax(logits / T), beta times its mean over samples (between the
    classes of one sample) plus gamma times its mean over classes (between the samples of one
    class), times T squared. Every position of (batch, positions..., classes) is a sample.

    Args:
        student: logits, shape (batch, ..., classes), float, at least two classes.
        teacher: logits, the student's shape, float.
        beta: at least 0, factor of the relation between classes.
        gamma: at least 0, factor of the relation between samples.
        temperature: above 0, divides both logits.
        dim: the dimension that holds classes.
        mask: None, or the logits' shape without classes: positions that are 0 are left out.

    Returns:
        0-dim, float32 or float64, no unit. Probabilities that do not vary correlate with nothing:
        they count as 1 and get no gradient. A single sample has no relation between samples, and
        that part is 0.

    Raises:
        ValueError: the shapes differ, have no batch, or have a single class.
    """
    shape = tuple(student.shape)
    student, teacher, _ = class_rows("correlation", student, teacher, dim=dim, mask=mask, rank=2)
    if student.shape[-1] == 1:
        where = "the last dimension" if dim == -1 else f"dimension {dim}"
        raise ValueError(f"correlation needs at least two classes, and {where} of {shape} has one")
    ours = (student / temperature).softmax(-1).flatten(0, -2)
    theirs = (teacher / temperature).softmax(-1).flatten(0, -2)
    if not len(ours):
        return student.sum()  # the mask leaves no position: 0, with a gradient of zeros
    loss = beta * _distance(ours, theirs, 1)
    if len(ours) > 1:
        loss = loss + gamma * _distance(ours, theirs, 0)
    return loss * temperature**2


def _distance(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Return the mean over vectors of one minus Pearson's correlation."""
    return 1 - (_deviation(student, dim) * _deviation(teacher, dim)).sum(dim).mean()


def _deviation(values: Tensor, dim: int) -> Tensor:
    """Return the deviations from the mean as vectors of length 1, or zeros if there are none."""
    deviation = values - values.mean(dim, keepdim=True)
    # The mean of equal numbers is rounded, and the remainder is not a deviation. Neither are
    # numbers
    # whose square underflows: probabilities of a class that is never predicted.
    limits = torch.finfo(values.dtype)
    noise = 4 * limits.eps * values.detach().abs().amax(dim, keepdim=True)
    noise = noise.clamp_min(100 * limits.tiny**0.5)
    is_noise = deviation.detach().abs().amax(dim, keepdim=True) <= noise
    return unit(deviation.masked_fill(is_noise, 0), dim)
