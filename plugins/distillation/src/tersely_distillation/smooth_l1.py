"""Squared error for small differences, absolute error for large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import pair


def smooth_l1(student: Tensor, teacher: Tensor, *, beta: float = 1.0) -> Tensor:
    """Return the mean over all elements of a difference that is squared near zero only.

    Girshick, "Fast R-CNN", ICCV 2015, equation 3, where beta is 1: with d the difference,
    d^2 / (2 beta) where |d| < beta, and |d| - beta / 2 elsewhere.

    Args:
        student: any shape, float.
        teacher: the student's shape, float.
        beta: above 0, the difference at which the square ends, units of the tensors.

    Returns:
        0-dim, float32 or float64, units of the tensors.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = pair("smooth_l1", student, teacher)
    return torch.nn.functional.smooth_l1_loss(student, teacher, beta=beta)
