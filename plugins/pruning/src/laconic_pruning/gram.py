"""Products of a matrix with itself, of which only the lower half is computed."""

from __future__ import annotations

from torch import Tensor

BLOCK = 192
"""Columns whose products are computed at once; narrower ones waste more than they save."""


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add X^T X to the lower triangle of a sum, in place.

    Args:
        total: shape (groups, columns, columns), the dtype of ``rows``; above the blocks of the
            diagonal it is neither read nor written.
        rows: X, shape (groups, vectors, columns).
    """
    columns = rows.shape[-1]
    for group, vectors in zip(total, rows, strict=True):
        for first in range(0, columns, BLOCK):
            last = min(first + BLOCK, columns)
            group[first:last, :last].addmm_(vectors[:, first:last].T, vectors[:, :last])


def mirrored(lower: Tensor) -> Tensor:
    """Return a symmetric matrix of which only the lower triangle is known.

    Args:
        lower: shape (..., columns, columns); above the diagonal it is not read.
    """
    below = lower.tril(-1)
    whole = below + below.mT
    whole.diagonal(dim1=-2, dim2=-1).copy_(lower.diagonal(dim1=-2, dim2=-1))
    return whole
