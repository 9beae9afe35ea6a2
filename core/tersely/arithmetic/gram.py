"""Products of inputs with themselves (Gram matrices): summed up, damped and inverted."""

from __future__ import annotations

import torch
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


def mirror_gram(lower: Tensor) -> Tensor:
    """Return a symmetric matrix of which only the lower triangle is known.

    Args:
        lower: shape (..., columns, columns); above the diagonal it is not read.
    """
    below = lower.tril(-1)
    whole = below + below.mT
    whole.diagonal(dim1=-2, dim2=-1).copy_(lower.diagonal(dim1=-2, dim2=-1))
    return whole


def damp_gram(gram: Tensor, damping: float) -> Tensor:
    """Return a matrix of products that can be inverted.

    Args:
        gram: shape (columns, columns), symmetric.
        damping: what is added to the diagonal, as a share of its mean.

    Returns:
        A new tensor. An input that was always zero counts as if it were alone.
    """
    found = gram.clone()
    diagonal = found.diagonal()
    mean = diagonal.mean()
    diagonal[diagonal == 0] = 1
    diagonal += damping * mean
    return found


def inverse_factor(gram: Tensor) -> Tensor:
    """Return the Cholesky factor of the inverse of a matrix of products.

    With J the reversal of rows and H the matrix, J H J = C C^T gives H^-1 = L L^T for
    L = J C^-T J: one factorization instead of two, and no inverse whose rounding the second one
    would meet.

    Args:
        gram: shape (columns, columns), symmetric.

    Returns:
        L, shape (columns, columns), lower triangular.

    Raises:
        ValueError: the matrix is singular.
    """
    factor, info = torch.linalg.cholesky_ex(gram.flip(0, 1))
    if int(info):
        raise ValueError(
            "the Gram matrix of its inputs is singular and cannot be inverted; calibrate with more "
            "batches or raise percdamp"
        )
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    return inverse.T.flip(0, 1).contiguous()
