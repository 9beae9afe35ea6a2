"""Operators of exported programs that read and make integers, for blocks of any shape.

The operator by the tensor's blocks (all of ``quantized_decomposed``):

    one block                          ``*_per_tensor`` with the scale as a number
    one block for each index of a dim  ``*_per_channel``
    runs along the last dimension      ``dequantize_per_channel_group`` of (rows, last dimension)
    runs along the first of two        the same of the transposed matrix
    any other                          ``*_per_channel`` of a view with one row for each block
    one block for each call            ``*_per_tensor.tensor`` with the scale computed there
    one block for each token           ``*_per_token`` with scales computed there
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor

from tersely.arithmetic.blocks import resolve_size
from tersely.arithmetic.quantized_types import storage_type

_OPERATORS = torch.ops.quantized_decomposed
_MATRIX = 2


def dequantize(
    integers: Tensor,
    scale: Tensor | float,
    zero_point: Tensor | float,
    *,
    size: Sequence[int],
    limits: tuple[int, int],
    out: torch.dtype,
) -> Tensor:
    """Dequantize integers.

    Args:
        integers: any shape.
        scale: a number, or one per block in the order of the blocks, shape (blocks,).
        zero_point: a number, or ``scale``'s shape.
        size: elements per block, one integer per dimension, -1 = the whole dimension.
        limits: the smallest and largest integer.
        out: the dtype of the result.
    """
    stored, shape = integers.dtype, integers.shape
    found: Tensor
    if not (isinstance(scale, Tensor) and isinstance(zero_point, Tensor)):
        found = _OPERATORS.dequantize_per_tensor(
            integers, scale, zero_point, *limits, stored, out_dtype=out
        )
    elif (axis := channel_of(size, shape)) is not None:
        found = _OPERATORS.dequantize_per_channel(
            integers, scale, zero_point, axis, *limits, stored, out_dtype=out
        )
    elif (group := group_of(size, shape)) is not None:
        # A weight that already is a matrix is read without a view, since exporters look for it.
        is_matrix = len(shape) == _MATRIX
        rows = integers if is_matrix else integers.reshape(-1, shape[-1])
        scales, zero_points = (one.reshape(rows.shape[0], -1) for one in (scale, zero_point))
        found = _OPERATORS.dequantize_per_channel_group(
            rows, scales, zero_points, *limits, stored, group, out
        )
        found = found if is_matrix else found.reshape(shape)
    elif len(shape) == _MATRIX and (group := group_of(size[::-1], shape[::-1])) is not None:
        # The layout of weights of shape (inputs, outputs).
        scales, zero_points = (one.reshape(-1, shape[1]).t() for one in (scale, zero_point))
        found = _OPERATORS.dequantize_per_channel_group(
            integers.t(), scales, zero_points, *limits, stored, group, out
        ).t()
    else:
        found = _OPERATORS.dequantize_per_channel(
            _to_rows(integers, size), scale, zero_point, 0, *limits, stored, out_dtype=out
        )
        found = _from_rows(found, size, shape)
    return found


def quantize_dequantize(
    value: Tensor,
    scale: Tensor | float,
    zero_point: Tensor | float,
    *,
    size: Sequence[int],
    limits: tuple[int, int],
) -> Tensor:
    """Quantize and dequantize values.

    Args:
        value: any shape, float.
        scale: as in `dequantize`.
        zero_point: as there.
        size: as there.
        limits: as there.
    """
    stored, out, shape = storage_type(*limits), value.dtype, value.shape
    if not isinstance(scale, Tensor):
        integers = _OPERATORS.quantize_per_tensor(value, scale, zero_point, *limits, stored)
        return dequantize(integers, scale, zero_point, size=size, limits=limits, out=out)
    axis = channel_of(size, shape)
    if axis is not None:
        integers = _OPERATORS.quantize_per_channel(value, scale, zero_point, axis, *limits, stored)
        return dequantize(integers, scale, zero_point, size=size, limits=limits, out=out)
    rows = _to_rows(value, size)
    integers = _OPERATORS.quantize_per_channel(rows, scale, zero_point, 0, *limits, stored)
    found = dequantize(integers, scale, zero_point, size=(1, -1), limits=limits, out=out)
    return _from_rows(found, size, shape)


def quantize_dequantize_call(
    value: Tensor, scale: Tensor, zero_point: Tensor, *, limits: tuple[int, int]
) -> Tensor:
    """Quantize and dequantize values by one scale that was computed from them.

    Args:
        value: any shape, float.
        scale: 0-dim.
        zero_point: 0-dim.
        limits: the smallest and largest integer.
    """
    stored = storage_type(*limits)
    integers = _OPERATORS.quantize_per_tensor.tensor(value, scale, zero_point, *limits, stored)
    found: Tensor = _OPERATORS.dequantize_per_tensor.tensor(
        integers, scale, zero_point, *limits, stored, out_dtype=value.dtype
    )
    return found


def quantize_dequantize_tokens(
    value: Tensor, scale: Tensor, zero_point: Tensor, *, limits: tuple[int, int]
) -> Tensor:
    """Quantize and dequantize every token by its own scale.

    Args:
        value: shape (..., features), float.
        scale: shape (..., 1).
        zero_point: shape (..., 1).
        limits: the smallest and largest integer.
    """
    stored = storage_type(*limits)
    integers = _OPERATORS.quantize_per_token(value, scale, zero_point, *limits, stored)
    found: Tensor = _OPERATORS.dequantize_per_token(
        integers, scale, zero_point, *limits, stored, value.dtype
    )
    return found


def channel_of(size: Sequence[int], shape: Sequence[int]) -> int | None:
    """Return the dimension of which every index is a block of its own, or None.

    Args:
        size: elements per block, one integer per dimension, -1 = the whole dimension.
        shape: the tensor's shape.
    """
    pairs = list(zip(size, shape, strict=True))
    divided = [dim for dim, (one, length) in enumerate(pairs) if one not in (-1, length)]
    return divided[0] if len(divided) == 1 and size[divided[0]] == 1 else None


def group_of(size: Sequence[int], shape: Sequence[int]) -> int | None:
    """Return the length of blocks that are runs along the last dimension, or None.

    Args:
        size: elements per block, one integer per dimension, -1 = the whole dimension.
        shape: the tensor's shape.
    """
    resolved = resolve_size(size, shape)
    is_run = len(shape) > 1 and all(one == 1 for one in resolved[:-1]) and resolved[-1] > 1
    return resolved[-1] if is_run else None


def _to_rows(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Return shape (blocks, elements per block)."""
    split, order = _split(size, tensor.shape)
    blocks = torch.Size(split[0::2]).numel()
    return tensor.reshape(split).permute(order).reshape(blocks, -1)


def _from_rows(rows: Tensor, size: Sequence[int], shape: Sequence[int]) -> Tensor:
    split, order = _split(size, shape)
    back = [order.index(dim) for dim in range(len(order))]
    return rows.reshape([split[dim] for dim in order]).permute(back).reshape(tuple(shape))


def _split(size: Sequence[int], shape: Sequence[int]) -> tuple[list[int], list[int]]:
    # Split each dimension into (blocks, length of a block), and move all counts to the front.
    pairs = zip(resolve_size(size, shape), shape, strict=True)
    split = [part for block, length in pairs for part in (length // block, block)]
    return split, [*range(0, len(split), 2), *range(1, len(split), 2)]
