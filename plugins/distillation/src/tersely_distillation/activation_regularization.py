"""Activation regularization: small activations, with no teacher."""

from __future__ import annotations

from torch import Tensor


def activation_regularization(student: Tensor, teacher: Tensor | None = None) -> Tensor:
    """Return the mean square of the activations.

    Merity et al., "Revisiting Activation Regularization for Language RNNs", ICML workshop 2017,
    section 2: alpha times the L2 norm of the activations, where alpha is `lambda` of the config
    list. Departs from the paper in the mean square in place of the norm, as the authors' code does.

    Args:
        student: any shape, float.
        teacher: not used; this is a loss of the student alone.

    Returns:
        0-dim, float32 or float64, squared units of the tensor; 0 where it has no element.
    """
    if student.dtype.itemsize < _FLOAT32:
        student = student.float()
    return student.square().sum() / max(student.numel(), 1)


_FLOAT32 = 4  # bytes
