"""Mean squared error between hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import pair


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over all elements of the squared difference.

    The hint loss of Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3,
    with the mean in place of half the sum, so that lambda does not depend on the layer's size.

    Args:
        student: any shape, float.
        teacher: the student's shape, float.

    Returns:
        0-dim, float32 or float64, squared units of the tensors.

    Raises:
        ValueError: the shapes differ; broadcasting one to the other would hide a mistake.
    """
    student, teacher = pair("mse", student, teacher)
    return torch.nn.functional.mse_loss(student, teacher)
