"""Pairs of tensors: checks of their shapes, and conversion to one precision."""

from __future__ import annotations

import torch
from torch import Tensor


def pair(
    loss: str, student: Tensor, teacher: Tensor, *, of: str = "tensors of one shape", rank: int = 0
) -> tuple[Tensor, Tensor]:
    """Return two tensors of one shape in one precision.

    Args:
        loss: the loss that compares them, for the error.
        student: any shape, any float dtype.
        teacher: any shape, any float dtype.
        of: the kind of tensors that the loss compares, for the error.
        rank: the least number of dimensions.

    Returns:
        Both, float32, or float64 where one of them is.

    Raises:
        ValueError: the shapes differ or have too few dimensions; broadcasting one to the other
            would hide a mistake.
    """
    if student.shape != teacher.shape or student.dim() < rank:
        raise ValueError(
            f"{loss} compares {of}: {both_shapes(student, teacher)}{_hint(student, teacher)}"
        )
    return in_one_precision(student, teacher)


def samples(loss: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample of two batches as one vector, all in one precision.

    Args:
        loss: the loss that compares them, for the error.
        student: shape (batch, ...), any float dtype.
        teacher: shape (batch, ...), any float dtype; only the batch is the student's.

    Returns:
        Shapes (batch, student features) and (batch, teacher features), float32, or float64 where
        one of them is.

    Raises:
        ValueError: there is no batch, or there are two of different size.
    """
    if not student.dim() or not teacher.dim() or len(student) != len(teacher):
        raise ValueError(
            f"{loss} compares the samples of one batch, dimension 0: "
            f"{both_shapes(student, teacher)}"
        )
    student, teacher = in_one_precision(student, teacher)
    # With an additional dimension, so that a batch of single numbers can be flattened.
    return student.unsqueeze(-1).flatten(1), teacher.unsqueeze(-1).flatten(1)


def feature_dim(tensor: Tensor) -> int:
    """Return the dimension of features.

    Args:
        tensor: (batch, features), (batch, tokens, features), or (batch, channels, positions...)
            with at least four dimensions.
    """
    first_of_a_map = 4
    return 1 if tensor.dim() >= first_of_a_map else tensor.dim() - 1


def both_shapes(student: Tensor, teacher: Tensor) -> str:
    """Return the text of two shapes, for an error.

    Args:
        student: any shape.
        teacher: any shape.
    """
    return f"the student's is {tuple(student.shape)}, the teacher's is {tuple(teacher.shape)}"


def in_one_precision(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as float32, or as float64 where one of them is.

    Half precision has too few digits for sums over a batch and for logarithms.

    Args:
        student: any shape, any float dtype.
        teacher: any shape, any float dtype.
    """
    is_double = torch.float64 in (student.dtype, teacher.dtype)
    dtype = torch.float64 if is_double else torch.float32
    return student.to(dtype), teacher.to(dtype)


def _hint(student: Tensor, teacher: Tensor) -> str:
    ours, theirs = student.shape, teacher.shape
    if len(ours) != len(theirs) or ours == theirs or ours[:-1] != theirs[:-1]:
        return ""
    return (
        f"; projection: linear maps the student's last dimension, {ours[-1]}, to the teacher's, "
        f"{theirs[-1]}"
    )
