"""The hint loss of FitNets, half the mean squared error."""

from __future__ import annotations

from torch import Tensor

from tersely_distillation.mse import mse
from tersely_distillation.pairs import pair
from tersely_distillation.positions import positions_left
from tersely_distillation.vectors import no_loss


def hint(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return half the mean over all elements of the squared difference.

    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3. The paper's regressor
    is not part of it: `projection: linear` adds one, and this function gets projected tensors.
    Departs from the paper by the mean over a layer's elements instead of the sum, so that lambda
    does not depend on the layer's size.

    Args:
        student: any shape, float; after the regressor.
        teacher: the student's shape, float.
        mask: None, or the tensors' shape without features: positions that are 0 are left out.

    Returns:
        0-dim, float32 or float64, squared units of the tensors.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = positions_left("hint", *pair("hint", student, teacher), mask)
    if mask is not None and not student.numel():
        return no_loss(student)
    return mse(student, teacher) / 2
