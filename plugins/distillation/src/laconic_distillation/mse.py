"""Mean squared error between hidden states."""

from __future__ import annotations

import torch
from torch import Tensor


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over all elements of the squared difference.

    The hint loss of Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3,
    with the mean in place of half the sum, so that lambda does not depend on the layer's size.

    Args:
        student: any shape, float.
        teacher: the student's shape, float.

    Returns:
        0-dim, the student's dtype, squared units of the tensors.

    Raises:
        ValueError: the shapes differ; broadcasting one to the other would hide a mistake.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"mse compares tensors of one shape: the student's is {tuple(student.shape)}, the "
            f"teacher's is {tuple(teacher.shape)}"
        )
    return torch.nn.functional.mse_loss(student, teacher)
