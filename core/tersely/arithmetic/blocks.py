"""Blocks: one granularity idea for masks and scales, as pure functions on shapes and tensors.

A block size has one integer per dimension and -1 for the whole dimension. A tensor is cut into
blocks, a decision is taken per block, and the decision is expanded back to the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor


def _sizes(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _optional_sizes(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else _sizes(values)


@attrs.frozen
class Blocks:
    """Which elements share one decision, and among which decisions a ratio is counted.

    Attributes:
        size: elements per block, one integer per dimension, -1 = the whole dimension.
        scope: elements per scope in the same notation: the ratio is met in each scope on its
            own; None = the whole tensor.
        keep: blocks kept in every scope (the N of N:M), or None when a ratio or threshold decides.
    """

    size: tuple[int, ...] = attrs.field(converter=_sizes)
    scope: tuple[int, ...] | None = attrs.field(default=None, converter=_optional_sizes)
    keep: int | None = None


def resolve_size(size: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Replace -1 by the dimension's length and check that blocks divide the shape.

    Args:
        size: block size, one integer per dimension.
        shape: the tensor's shape.

    Returns:
        The block size with every entry positive.

    Raises:
        ValueError: the lengths differ, an entry is 0 or below -1, or a dimension is not a
            multiple of its block.
    """
    if len(size) != len(shape):
        raise ValueError(
            f"block size {list(size)} has {len(size)} dimensions, the shape {list(shape)} has "
            f"{len(shape)}"
        )
    resolved = []
    for dim, (block, length) in enumerate(zip(size, shape, strict=True)):
        if block == -1:
            resolved.append(max(length, 1))
        elif block < 1:
            raise ValueError(f"block size {list(size)}: {block} is neither positive nor -1")
        elif length % block:
            raise ValueError(
                f"block size {list(size)} does not divide the shape {list(shape)}: dimension "
                f"{dim} has {length} elements, {length % block} left over by blocks of {block}"
            )
        else:
            resolved.append(block)
    return tuple(resolved)


def count_blocks(size: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Return how many blocks lie along each dimension.

    Args:
        size: block size, one integer per dimension.
        shape: the tensor's shape.

    Raises:
        ValueError: as in `resolve_size`.
    """
    resolved = resolve_size(size, shape)
    return tuple(length // block for block, length in zip(resolved, shape, strict=True))


def block_numel(size: Sequence[int], shape: Sequence[int]) -> int:
    """Return how many elements one block holds.

    Args:
        size: block size, one integer per dimension.
        shape: the tensor's shape.

    Raises:
        ValueError: as in `resolve_size`.
    """
    return math.prod(resolve_size(size, shape))


def to_blocks(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """View a tensor as blocks.

    Args:
        tensor: any shape.
        size: block size, one integer per dimension of ``tensor``.

    Returns:
        Shape (blocks along dim 0, ..., blocks along dim n-1, elements per block), sharing memory
        where the layout allows.

    Raises:
        ValueError: as in `resolve_size`.
    """
    shape = tensor.shape
    resolved = resolve_size(size, shape)
    counts = tuple(length // block for block, length in zip(resolved, shape, strict=True))
    split = [part for pair in zip(counts, resolved, strict=True) for part in pair]
    rank = len(shape)
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]
    return tensor.reshape(split).permute(order).reshape(*counts, math.prod(resolved))


def reduce_blocks(
    tensor: Tensor, size: Sequence[int], reduction: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Reduce every block to one value.

    Args:
        tensor: any shape.
        size: block size, one integer per dimension of ``tensor``.
        reduction: called with (blocks, -1); must remove the last dimension, as
            ``torch.sum(blocks, -1)`` does.

    Returns:
        Shape (blocks along each dimension).

    Raises:
        ValueError: as in `resolve_size`.
    """
    return reduction(to_blocks(tensor, size), -1)


def expand_blocks(values: Tensor, size: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Repeat one value per block over the block's elements.

    Args:
        values: shape (blocks along each dimension).
        size: block size, one integer per dimension.
        shape: the full shape.

    Returns:
        A tensor of ``shape``; a view without copy where every block is one element or a whole
        dimension.

    Raises:
        ValueError: as in `resolve_size`, or ``values`` does not have one value per block.
    """
    counts = count_blocks(size, shape)
    _check_values(values, counts)
    if is_broadcastable(size, shape):
        return values.expand(tuple(shape))
    resolved = resolve_size(size, shape)
    interleaved = [part for count in counts for part in (count, 1)]
    expanded = [part for pair in zip(counts, resolved, strict=True) for part in pair]
    return values.reshape(interleaved).expand(expanded).reshape(tuple(shape))


def interleaved_shape(size: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape in which values that `lay_out` laid out broadcast against the tensor.

    Args:
        size: block size, one integer per dimension.
        shape: the full shape.

    Returns:
        ``shape`` itself where one value per block broadcasts against it, else (blocks along dim 0,
        block length 0, blocks along dim 1, block length 1, ...). Either is a view of any tensor of
        ``shape``, whatever its strides.

    Raises:
        ValueError: as in `resolve_size`.
    """
    if is_broadcastable(size, shape):
        return tuple(shape)
    resolved = resolve_size(size, shape)
    counts = count_blocks(size, shape)
    return tuple(part for pair in zip(counts, resolved, strict=True) for part in pair)


def implied_size(counts: Sequence[int], shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the block size that the shape of one value per block implies.

    Args:
        counts: blocks along each dimension.
        shape: the full shape.

    Returns:
        None where ``counts`` broadcasts against ``shape``, or has another number of dimensions.
    """
    pairs = tuple(zip(counts, shape, strict=False))
    if len(counts) != len(shape) or all(count in (1, length) for count, length in pairs):
        return None
    return tuple(-1 if count == 1 else length // max(count, 1) for count, length in pairs)


def lay_out(values: Tensor, size: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Shape one value per block so that it broadcasts against `interleaved_shape`.

    Nothing of the tensor's size is allocated, which `expand_blocks` has to do for most blocks.

    Args:
        values: shape (blocks along each dimension).
        size: block size, one integer per dimension.
        shape: the full shape.

    Returns:
        The same values, sharing memory.

    Raises:
        ValueError: as in `expand_blocks`.
    """
    counts = count_blocks(size, shape)
    _check_values(values, counts)
    if is_broadcastable(size, shape):
        return values
    return values.reshape([part for count in counts for part in (count, 1)])


def is_broadcastable(size: Sequence[int], shape: Sequence[int]) -> bool:
    """Tell whether one value per block broadcasts against the tensor without being repeated.

    Args:
        size: block size, one integer per dimension.
        shape: the full shape.

    Raises:
        ValueError: as in `resolve_size`.
    """
    resolved = resolve_size(size, shape)
    return all(block in (1, length) for block, length in zip(resolved, shape, strict=True))


def element_blocks(rank: int) -> Blocks:
    """Return the blocks that decide on every element alone, for ``rank`` dimensions."""
    return Blocks((1,) * rank)


def tensor_blocks(rank: int) -> Blocks:
    """Return the single block that is the whole tensor, for ``rank`` dimensions."""
    return Blocks((-1,) * rank)


def channel_blocks(rank: int, dim: int) -> Blocks:
    """Return one block for each index of one dimension.

    Args:
        rank: number of dimensions.
        dim: the dimension that stays apart, negative from the end.
    """
    index = dim % rank
    return Blocks(tuple(1 if position == index else -1 for position in range(rank)))


def output_blocks(shape: Sequence[int], dim: int, *, groups: int = 1) -> Blocks:
    """Return one block for each output channel of a weight.

    Args:
        shape: the weight's shape.
        dim: the dimension that counts output channels.
        groups: how often they repeat along dimension 0; as many runs of it have channels of their
            own, which lie in the order of the outputs.
    """
    blocks = channel_blocks(len(shape), dim)
    is_repeated = groups > 1 and dim % len(shape) != 0 and shape[0] % groups == 0
    return Blocks((shape[0] // groups, *blocks.size[1:])) if is_repeated else blocks


def sum_blocks(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Sum every block, keeping the block shape.

    Args:
        tensor: any shape, float.
        size: block size, one integer per dimension of ``tensor``.

    Returns:
        Shape (blocks along each dimension), the tensor's dtype.

    Raises:
        ValueError: as in `resolve_size`.
    """
    return reduce_blocks(tensor, size, torch.sum)


def _check_values(values: Tensor, counts: tuple[int, ...]) -> None:
    if tuple(values.shape) != counts:
        raise ValueError(f"expected one value per block, shape {counts}, got {tuple(values.shape)}")
