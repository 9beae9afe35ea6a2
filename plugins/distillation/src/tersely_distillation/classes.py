"""Logits as rows of classes: the dimension of classes, and the positions that count."""

from __future__ import annotations

from torch import Tensor

from tersely_distillation.pairs import both_shapes, pair


def class_rows(
    loss: str, student: Tensor, teacher: Tensor, *, dim: int, mask: Tensor | None, rank: int
) -> tuple[Tensor, Tensor, int]:
    """Return two tensors of logits with classes in the last dimension, and what to divide by.

    Args:
        loss: the loss that compares them, for errors.
        student: logits, any shape with a batch in dimension 0, float.
        teacher: logits, the student's shape, float.
        dim: the dimension that holds classes, negative from the end.
        mask: None, or the shape without classes: positions that are 0 or False are left out.
        rank: the least number of dimensions that the loss needs.

    Returns:
        Both, shape (batch, ..., classes), or (positions left, classes) with a mask; and the length
        of dimension 0, or the number of positions left (1 where none is).

    Raises:
        ValueError: the shapes differ, have no dimension ``dim``, or the mask has another shape.
    """
    student, teacher = pair(
        loss, student, teacher, of="logits of one shape (batch, ..., classes)", rank=rank
    )
    if not -student.ndim <= dim < student.ndim or (student.ndim > 1 and dim % student.ndim == 0):
        raise ValueError(
            f"{loss} has dim {dim} for classes, and the logits have the batch in dimension 0 and "
            f"{student.ndim} dimensions: {both_shapes(student, teacher)}"
        )
    student, teacher = student.movedim(dim, -1), teacher.movedim(dim, -1)
    if mask is None:
        return student, teacher, len(student)
    if mask.shape != student.shape[:-1]:
        raise ValueError(
            f"{loss} has a mask of shape {tuple(mask.shape)} for positions of shape "
            f"{tuple(student.shape[:-1])}: the logits' shape without the classes (dim {dim})"
        )
    is_left = mask.to(student.device) != 0
    return student[is_left], teacher[is_left], max(int(is_left.sum()), 1)
