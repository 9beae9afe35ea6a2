"""How the integers of a weight share scales, in the terms of file formats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

import tersely
from tersely.contracts import IntegerWeight

_MATRIX = 2
_MOST_BITS = 8
_BITS = re.compile(r"u?int(\d+)\Z")


@attrs.frozen
class Grid:
    """The parts of a weight that share a scale.

    Attributes:
        kind: the ``tensor``, a ``channel`` (one index of dimension 0), a ``group`` (a run of a
            row), a ``block`` of rows and columns, or ``other``.
        size: elements per block along each dimension.
    """

    kind: Literal["tensor", "channel", "group", "block", "other"]
    size: tuple[int, ...]

    @property
    def group(self) -> int:
        """The length of the run that shares a scale: a group, or a whole row."""
        return self.size[-1]

    def __str__(self) -> str:
        if self.kind == "group":
            return f"groups of {self.group}"
        if self.kind == "tensor":
            return "one scale for the tensor"
        if self.kind == "channel":
            return "one scale for each output channel"
        return f"blocks of {' x '.join(map(str, self.size))}"


def grid_of(weight: IntegerWeight) -> Grid:
    """Return the parts of a weight that share a scale.

    Args:
        weight: a weight as integers.
    """
    shape, scale = tuple(weight.values.shape), weight.qparams.scale
    if scale.numel() == 1:
        return Grid("tensor", shape)
    size = _size(weight)
    if size[0] == 1 and size[1:] == shape[1:]:
        return Grid("channel", size)
    if len(shape) == _MATRIX:
        return Grid("group" if size[0] == 1 else "block", size)
    return Grid("other", size)


def _size(weight: IntegerWeight) -> tuple[int, ...]:
    shape, qparams = tuple(weight.values.shape), weight.qparams
    if qparams.block_size is not None:
        return tuple(
            whole if one == -1 else one
            for one, whole in zip(qparams.block_size, shape, strict=True)
        )
    scale = tuple(qparams.scale.shape)
    counts = (1,) * (len(shape) - len(scale)) + scale
    return tuple(whole // count for whole, count in zip(shape, counts, strict=True))


def is_read_in_place(size: Sequence[int], shape: Sequence[int]) -> bool:
    """Return whether blocks of more than two dimensions are runs along one of them.

    The output channels of a grouped transposed convolution are, whose weight has the shape (inputs,
    outputs / groups, ...): runs of inputs / groups for each index of the second dimension.

    Args:
        size: elements per block along each dimension.
        shape: the weight's shape.
    """
    runs = [one for one, length in zip(size, shape, strict=True) if 1 < one < length]
    return len(shape) > _MATRIX and len(runs) == 1 and any(one > 1 for one in size[:-1])


def bits_of(weight: IntegerWeight) -> int | None:
    """Return the bits of a quantized type, or None if it is not an integer type.

    Args:
        weight: a weight as integers.
    """
    match = _BITS.match(weight.qparams.dtype)
    return int(match[1]) if match else None


def signed(weight: IntegerWeight, bits: int) -> tuple[Tensor, Tensor]:
    """Return integers and zero points as signed ones; unsigned ones are lowered by half.

    Args:
        weight: a weight as integers of at most 8 bits, with integer zero points.
        bits: their bits.

    Returns:
        int8 values of the weight's shape, and int8 zero points of the scale's shape.
    """
    shift = 1 << (bits - 1) if weight.qparams.quant_min >= 0 else 0
    values = weight.values if not shift else weight.values.to(torch.int16) - shift
    zero_point = weight.qparams.zero_point.to(torch.int16) - shift
    return values.to(torch.int8), zero_point.to(torch.int8)


def has_zero_points(weight: IntegerWeight, bits: int) -> bool:
    """Tell whether any zero point is not zero once unsigned integers are written as signed ones.

    Args:
        weight: a weight as integers.
        bits: their bits.
    """
    shift = 1 << (bits - 1) if weight.qparams.quant_min >= 0 else 0
    return bool((weight.qparams.zero_point != shift).any())


def refused_numbers(name: str, weight: IntegerWeight) -> tersely.Refusal | None:
    """Return why a format of small integers with scales cannot hold a weight, or None.

    Args:
        name: the weight's full name.
        weight: the weight as integers.
    """
    qparams, bits = weight.qparams, bits_of(weight)
    if bits is None or bits > _MOST_BITS:
        return tersely.Refusal(
            f"the format holds integers of up to {_MOST_BITS} bits, and this is {qparams.dtype}; "
            "quantize it to int8 or fewer bits",
            name,
        )
    zero_point = qparams.zero_point
    if zero_point.is_floating_point() and bool((zero_point != zero_point.round()).any()):
        return tersely.Refusal(
            "its zero points lie between integers, and the format has whole ones; quantize it "
            "with an algorithm that chooses whole ones",
            name,
        )
    if weight.input_scale is not None:
        return tersely.Refusal(
            "its inputs are divided by factors, which the format cannot hold; let "
            "finalize() fold them, which is possible where a norm or a linear layer comes before "
            "it, or quantize without factors",
            name,
        )
    return None
