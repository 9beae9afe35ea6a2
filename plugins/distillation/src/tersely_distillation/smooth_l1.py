"""Squared error for small differences, absolute error for large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import pair
from tersely_distillation.positions import positions_left
from tersely_distillation.vectors import no_loss


def smooth_l1(
    student: Tensor, teacher: Tensor, *, beta: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Return the mean over all elements of differences that are squared only near zero.

    Girshick, "Fast R-CNN", ICCV 2015, equation 3, where beta is 1: with d the difference,
    d^2 / (2 beta) where |d| < beta, and |d| - beta / 2 elsewhere.

    Args:
        student: any shape, float.
        teacher: the student's shape, float.
        beta: above 0, the difference up to which errors are squared, units of the tensors.
        mask: None, or the tensors' shape without features: positions that are 0 are left out.

    Returns:
        0-dim, float32 or float64, units of the tensors.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = positions_left("smooth_l1", *pair("smooth_l1", student, teacher), mask)
    if mask is not None and not student.numel():
        return no_loss(student)
    return torch.nn.functional.smooth_l1_loss(student, teacher, beta=beta)
