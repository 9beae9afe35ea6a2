"""One value per block, shaped so that it broadcasts against the tensor without being repeated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tersely.arithmetic.blocks import (
    check_values,
    count_blocks,
    expand_blocks,
    is_broadcastable,
    resolve_size,
)
from tersely.arithmetic.numbered import Numbering


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
    if isinstance(size, Numbering) or is_broadcastable(size, shape):
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

    Nothing of the tensor's size is allocated, which `expand_blocks` has to do for most blocks, but
    for numbered ones: a value for each element is.

    Args:
        values: shape (blocks along each dimension).
        size: block size, one integer per dimension.
        shape: the full shape.

    Returns:
        The same values, sharing memory unless blocks are numbered.

    Raises:
        ValueError: as in `expand_blocks`.
    """
    if isinstance(size, Numbering):
        return expand_blocks(values, size, shape)
    counts = count_blocks(size, shape)
    check_values(values, counts)
    if is_broadcastable(size, shape):
        return values
    return values.reshape([part for count in counts for part in (count, 1)])
