"""Mean squared error between hidden states."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import pair
from tersely_distillation.positions import positions_left
from tersely_distillation.vectors import no_loss


def mse(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean over all elements of the squared difference.

    The hint loss of Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3,
    with the mean in place of half the sum, so that lambda does not depend on the layer's size.

    Args:
        student: any shape, float.
        teacher: the student's shape, float.
        mask: None, or the tensors' shape without features: positions that are 0 are left out.

    Returns:
        0-dim, float32 or float64, squared units of the tensors.

    Raises:
        ValueError: the shapes differ; broadcasting one to the other would hide a mistake.
    """
    student, teacher = positions_left("mse", *pair("mse", student, teacher), mask)
    if mask is not None and not student.numel():
        return no_loss(student)
    return torch.nn.functional.mse_loss(student, teacher)
