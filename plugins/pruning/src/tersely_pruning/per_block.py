"""Sums over blocks, and one value of each block spread over it, without copies of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import tersely


def interleave(tensor: Tensor, size: Sequence[int]) -> tuple[Tensor, list[int]]:
    """View a tensor with each dimension split into (blocks, length of a block).

    Args:
        tensor: any shape; read only.
        size: block size, one integer per dimension, -1 = the whole dimension.

    Returns:
        A view, whatever the tensor's strides, and the indices of the dimensions inside blocks.
    """
    split: list[int] = []
    for block, length in zip(size, tensor.shape, strict=True):
        inner = max(length, 1) if block == -1 else block
        split += [length // inner, inner]
    return tensor.reshape(split), list(range(1, 2 * len(size), 2))


def sum_per_block(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Sum every block.

    Args:
        tensor: any shape, float; read only.
        size: block size, one integer per dimension, -1 = the whole dimension.

    Returns:
        Shape (blocks along each dimension); float32, or float64 where the tensor is.
    """
    dtype = score_dtype(tensor)
    if all(block == 1 for block in size):
        return tensor.to(dtype)
    view, inside = interleave(tensor, size)
    return view.sum(inside, dtype=dtype)


def sums_of(tensor: Tensor, blocks: tersely.Blocks) -> Tensor:
    """Sum every block of a target.

    Args:
        tensor: the target's shape, float; read only.
        blocks: which elements make one block.

    Returns:
        Shape (blocks along each dimension), of numbered blocks (blocks,); as `sum_per_block`.
    """
    if blocks.index is None:
        return sum_per_block(tensor, blocks.size)
    return tersely.sum_blocks(tensor.to(score_dtype(tensor)), blocks.size)


def spread(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat one value per block over its block, unless broadcasting does it.

    Args:
        values: shape (blocks along each dimension).
        shape: the full shape.

    Returns:
        ``values`` itself where it broadcasts to ``shape``, else a tensor of ``shape``.
    """
    counts = tuple(values.shape)
    if all(count in (1, length) for count, length in zip(counts, shape, strict=True)):
        return values
    size = [length // count for count, length in zip(counts, shape, strict=True)]
    return tersely.expand_blocks(values, size, shape)


def block_counts(target: tersely.PruningTarget) -> tuple[int, ...]:
    """Return the number of blocks of a target along each dimension.

    Args:
        target: the target.
    """
    return tersely.count_blocks(target.blocks.size, tuple(target.tensor.shape))


def score_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype of a tensor's scores.

    Args:
        tensor: float.
    """
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
