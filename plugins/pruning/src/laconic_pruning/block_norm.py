"""Norms of blocks, without copies of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    if all(block == 1 for block in size):
        return tensor.abs().to(dtype)
    split: list[int] = []
    for block, length in zip(size, tensor.shape, strict=True):
        inner = max(length, 1) if block == -1 else block
        split += [length // inner, inner]
    # Splitting dimensions is always a view, whatever the tensor's strides.
    dims = list(range(1, 2 * len(size), 2))
    norms: Tensor = torch.linalg.vector_norm(tensor.reshape(split), order, dim=dims, dtype=dtype)
    return norms
