"""Mean absolute error between hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import pair
from tersely_distillation.positions import positions_left
from tersely_distillation.vectors import no_loss


def l1(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean over all elements of the difference's magnitude.

    The first term of Chang, Yang and Lee, "DistilHuBERT", ICASSP 2022, equation 1, with the mean
    over time in place of the sum. Outliers weigh less than in `mse`. Where student and teacher are
    equal the gradient is zero.

    Args:
        student: any shape, float.
        teacher: the student's shape, float.
        mask: None, or the tensors' shape without features: positions that are 0 are left out.

    Returns:
        0-dim, float32 or float64, units of the tensors.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = positions_left("l1", *pair("l1", student, teacher), mask)
    if mask is not None and not student.numel():
        return no_loss(student)
    return torch.nn.functional.l1_loss(student, teacher)
