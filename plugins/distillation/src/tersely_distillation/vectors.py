"""Directions and pairwise products of vectors, with finite gradients for vectors of zeros."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Return vectors scaled to length 1.

    A vector of zeros has no direction: it stays zero and gets no gradient.

    Args:
        vectors: any shape, float.
        dim: the dimension along a vector.

    Returns:
        The same shape.
    """
    vectors = at_most_one(vectors, dim)
    lengths = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / torch.where(lengths == 0, 1, lengths)


def at_most_one(vectors: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return vectors divided by their largest magnitude, so that powers stay in range.

    The divisor counts as a constant, so gradients are correct only for functions that do not depend
    on scale.

    Args:
        vectors: any shape, float.
        dim: the dimensions along a vector.

    Returns:
        The same shape, in [-1, 1]; zeros stay zero and get no gradient.
    """
    largest = vectors.detach().abs().amax(dim, keepdim=True)
    return torch.where(largest == 0, 0, vectors / torch.where(largest == 0, 1, largest))


def products(rows: Tensor) -> Tensor:
    """Return the inner products of all pairs of rows, without autocast.

    Args:
        rows: shape (samples, features), float.

    Returns:
        Shape (samples, samples), the rows' dtype.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ rows.mT


def off_diagonal(matrix: Tensor) -> Tensor:
    """Return a square matrix without its diagonal.

    Args:
        matrix: shape (samples, samples), at least one sample.

    Returns:
        Shape (samples, samples - 1), every row in its order.
    """
    count = len(matrix)
    # After its first element, the matrix consists of rows of count + 1 that end on the diagonal.
    rows = matrix.flatten()[1:].view(count - 1, count + 1)
    return rows[:, :-1].reshape(count, count - 1)


def no_loss(student: Tensor) -> Tensor:
    """Return a zero that depends on the student, for batches with nothing to compare.

    Args:
        student: shape (batch, ...), float.

    Returns:
        0-dim, the student's dtype; its gradient is zero.
    """
    return student[:0].sum()
