"""Norms of blocks, without copies of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

import tersely
from tersely_pruning.per_block import interleave, score_dtype


def block_norm(tensor: Tensor, blocks: tersely.Blocks, order: int) -> Tensor:
    """Return a vector norm of every block.

    Args:
        tensor: any shape, float; read only.
        blocks: which elements make one block.
        order: 1 or 2.

    Returns:
        Shape (blocks along each dimension), of numbered blocks (blocks,); float32, or float64 where
        the tensor is.
    """
    tensor = tensor.detach()
    dtype = score_dtype(tensor)
    size = blocks.size
    if blocks.index is not None:
        powers = tensor.to(dtype).abs() if order == 1 else tensor.to(dtype).square()
        sums = tersely.sum_blocks(powers, size)
        return sums if order == 1 else sums.sqrt()
    if tuple(size) == (1,) * len(size):
        magnitudes = tensor.abs()
        return magnitudes if magnitudes.dtype == dtype else magnitudes.to(dtype)
    view, inside = interleave(tensor, size)
    norms: Tensor = torch.linalg.vector_norm(view, order, dim=inside, dtype=dtype)
    return norms
