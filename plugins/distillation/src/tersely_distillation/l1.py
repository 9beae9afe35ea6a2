"""Mean absolute error between hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import pair


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over all elements of the difference's magnitude.

    The first term of Chang, Yang and Lee, "DistilHuBERT", ICASSP 2022, equation 1, with the mean
    over time in place of the sum. Outliers weigh less than in `mse`. Where student and teacher are
    equal the gradient is zero.

    Args:
        student: any shape, float.
        teacher: the student's shape, float.

    Returns:
        0-dim, float32 or float64, units of the tensors.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = pair("l1", student, teacher)
    return torch.nn.functional.l1_loss(student, teacher)
