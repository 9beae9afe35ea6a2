"""The hint loss of FitNets, half the mean squared error."""

from __future__ import annotations

from torch import Tensor

from tersely_distillation.mse import mse
from tersely_distillation.pairs import pair


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the mean over all elements of the squared difference.

    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3. The paper's
    regressor is not part of it: `projection: linear` puts one in front, and this function gets
    tensors that are projected already. Departs from the paper in taking the mean over a layer's
    elements, where the paper sums them, so that lambda does not depend on the layer's size.

    Args:
        student: any shape, float; after the regressor.
        teacher: the student's shape, float.

    Returns:
        0-dim, float32 or float64, squared units of the tensors.

    Raises:
        ValueError: the shapes differ.
    """
    return mse(*pair("hint", student, teacher)) / 2
