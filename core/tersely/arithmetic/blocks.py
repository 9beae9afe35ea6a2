"""Blocks: one granularity idea for masks and scales, as pure functions on shapes and tensors.

A tensor is cut into blocks, a decision is taken per block, and the decision is expanded back to the
tensor. How it is cut is the block size, which every function here takes.

===========  ============================================  ======================================
block size   what a block is                               one value per block has the shape
===========  ============================================  ======================================
rectangle    one length per dimension, -1 = all of it      (blocks along dim 0, along dim 1, ...)
`Numbering`  the elements that carry its number            (blocks,)
===========  ============================================  ======================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.numbered import Index, Numbering, NumberingError


def _sizes(values: Sequence[int]) -> tuple[int, ...]:
    return values if isinstance(values, Numbering) else tuple(int(value) for value in values)


def _optional_sizes(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else _sizes(values)


@attrs.frozen(init=False)
class Blocks:
    """Which elements share one decision, and among which decisions a ratio is counted.

    Attributes:
        size: elements per block, one integer per dimension, -1 = the whole dimension; of numbered
            blocks the object that represents them in every function that takes a size.
        scope: elements per scope in the same notation: the ratio is met in each scope on its
            own; None = the whole tensor.
        keep: blocks kept in every scope (the N of N:M), or None when a ratio or threshold decides.
    """

    size: tuple[int, ...] = attrs.field(converter=_sizes)
    scope: tuple[int, ...] | None = attrs.field(default=None, converter=_optional_sizes)
    keep: int | None = None

    def __init__(
        self,
        size: Sequence[int] | None = None,
        scope: Sequence[int] | None = None,
        keep: int | None = None,
        *,
        index: Index | None = None,
    ) -> None:
        """Cut a tensor into rectangles of one size, or into blocks of any shape.

        Args:
            size: elements per block, one integer per dimension, -1 = the whole dimension.
            scope: elements per scope in the same notation; None = the whole tensor.
            keep: blocks kept in every scope, or None.
            index: in place of ``size``, the number of each element's block: integers in the
                tensor's shape, from 0 on, each number used. A tensor, a NumPy array or nested
                sequences; copied to the CPU as int32.

        Raises:
            ValueError: neither or both of ``size`` and ``index`` are given, the index numbers no
                blocks, or a scope or keep is given with it.
        """
        if (size is None) == (index is None):
            raise ValueError(
                "Blocks needs either size, elements per dimension, or index, the number of each "
                f"element's block; found {'neither' if size is None else 'both'}"
            )
        found = size if index is None else Numbering(index)
        if isinstance(found, Numbering) and (scope is not None or keep is not None):
            raise NumberingError(
                "a scope consists of rectangular blocks, so it cannot be combined with numbered "
                "blocks; leave out scope and keep when you give index"
            )
        self.__attrs_init__(() if found is None else found, scope, keep)

    @property
    def index(self) -> Tensor | None:
        """The number of each element's block, int32 on the CPU; None where blocks have a size."""
        return self.size.numbers if isinstance(self.size, Numbering) else None


def resolve_size(size: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Replace -1 by the dimension's length and check that blocks divide the shape.

    Args:
        size: block size, one integer per dimension.
        shape: the tensor's shape.

    Returns:
        The block size with every entry positive; a numbering as it is.

    Raises:
        ValueError: the lengths differ, an entry is 0 or below -1, or a dimension is not a
            multiple of its block.
    """
    if isinstance(size, Numbering):
        size.check_shape(shape)
        return size
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
    """Return the number of blocks along each dimension, or (blocks,) for numbered ones.

    Args:
        size: block size, one integer per dimension.
        shape: the tensor's shape.

    Raises:
        ValueError: as in `resolve_size`.
    """
    resolved = resolve_size(size, shape)
    if isinstance(resolved, Numbering):
        return (resolved.total,)
    return tuple(length // block for block, length in zip(resolved, shape, strict=True))


def block_numel(size: Sequence[int], shape: Sequence[int]) -> int:
    """Return how many elements one block holds.

    Args:
        size: block size, one integer per dimension.
        shape: the tensor's shape.

    Raises:
        ValueError: as in `resolve_size`, or numbered blocks differ in size.
    """
    resolved = resolve_size(size, shape)
    return resolved.even_size if isinstance(resolved, Numbering) else math.prod(resolved)


def to_blocks(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """View a tensor as blocks.

    Args:
        tensor: any shape.
        size: block size, one integer per dimension of ``tensor``.

    Returns:
        Shape (blocks along dim 0, ..., blocks along dim n-1, elements per block), sharing memory
        where the layout allows; of numbered blocks (blocks, elements per block), a copy.

    Raises:
        ValueError: as in `resolve_size`, or numbered blocks differ in size.
    """
    if isinstance(size, Numbering):
        return size.stack(tensor)
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
            ``torch.sum(blocks, -1)`` does. Called once for each size that numbered blocks have.

    Returns:
        Shape (blocks along each dimension), or (blocks,).

    Raises:
        ValueError: as in `resolve_size`.
    """
    if isinstance(size, Numbering):
        return size.reduce(tensor, reduction)
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
    check_values(values, counts)
    if isinstance(size, Numbering):
        return size.expand(values)
    if is_broadcastable(size, shape):
        return values.expand(tuple(shape))
    resolved = resolve_size(size, shape)
    interleaved = [part for count in counts for part in (count, 1)]
    expanded = [part for pair in zip(counts, resolved, strict=True) for part in pair]
    return values.reshape(interleaved).expand(expanded).reshape(tuple(shape))


def is_broadcastable(size: Sequence[int], shape: Sequence[int]) -> bool:
    """Tell whether one value per block broadcasts against the tensor without being repeated.

    Args:
        size: block size, one integer per dimension.
        shape: the full shape.

    Raises:
        ValueError: as in `resolve_size`.
    """
    resolved = resolve_size(size, shape)
    if isinstance(resolved, Numbering):
        return False
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
    if isinstance(size, Numbering):
        return size.sum(tensor)
    return reduce_blocks(tensor, size, torch.sum)


def check_values(values: Tensor, counts: tuple[int, ...]) -> None:
    """Refuse what is not one value per block.

    Args:
        values: what should be.
        counts: blocks along each dimension, as `count_blocks` returns them.

    Raises:
        ValueError: it has another shape.
    """
    if tuple(values.shape) != counts:
        raise ValueError(f"expected one value per block, shape {counts}, got {tuple(values.shape)}")
