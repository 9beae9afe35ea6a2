"""Norms of blocks, without copies of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tersely_pruning.per_block import interleave, score_dtype


def block_norm(tensor: Tensor, size: Sequence[int], order: int) -> Tensor:
    """Return a vector norm of every block.

    Args:
        tensor: any shape, float; read only.
        size: block size, one integer per dimension, -1 = the whole dimension.
        order: 1 or 2.

    Returns:
        Shape (blocks along each dimension); float32, or float64 where the tensor is.
    """
    tensor = tensor.detach()
    dtype = score_dtype(tensor)
    if tuple(size) == (1,) * len(size):
        magnitudes = tensor.abs()
        return magnitudes if magnitudes.dtype == dtype else magnitudes.to(dtype)
    view, inside = interleave(tensor, size)
    norms: Tensor = torch.linalg.vector_norm(view, order, dim=inside, dtype=dtype)
    return norms
