"""Angle between the feature vectors of student and teacher."""

from __future__ import annotations

from torch import Tensor

from tersely_distillation.pairs import feature_dim, pair
from tersely_distillation.positions import positions_left
from tersely_distillation.vectors import no_loss, unit


def cosine(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean over all vectors of one minus the cosine of their angle.

    Sanh et al., "DistilBERT", NeurIPS workshop on energy efficient machine learning 2019,
    section 3: the directions of hidden states are aligned, not their lengths. A vector of
    zeros has no direction: its cosine with anything counts as 0, and it gets no gradient.

    Args:
        student: shape (batch, ..., features) of two or three dimensions, or
            (batch, channels, positions...) of four or more, whose features are its channels; float.
        teacher: the student's shape, float.
        mask: None, or the tensors' shape without features: positions that are 0 are left out.

    Returns:
        0-dim, float32 or float64, between 0 (same directions) and 2 (opposite ones).

    Raises:
        ValueError: the shapes differ or have one dimension only.
    """
    student, teacher = pair(
        "cosine", student, teacher, of="vectors of one shape (batch, ..., features)", rank=2
    )
    dim = feature_dim(student) if mask is None else -1
    student, teacher = positions_left("cosine", student, teacher, mask)
    if mask is not None and not student.numel():
        return no_loss(student)
    return 1 - (unit(student, dim) * unit(teacher, dim)).sum(dim).mean()
