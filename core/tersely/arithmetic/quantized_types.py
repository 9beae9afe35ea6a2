"""Quantized types: the values each can take, and the tensor type that stores them."""

from __future__ import annotations

import re

import attrs
import torch

FLOAT8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
"""Floating-point types, which have a scale and no zero point."""

_INTEGER = re.compile(r"(u?)int([1-9][0-9]?)\Z")
_LARGEST_BITS = 16


@attrs.frozen
class Range:
    """The values a quantized type can take.

    Attributes:
        quant_min: the smallest.
        quant_max: the largest.
    """

    quant_min: int
    quant_max: int


def quantized_range(dtype: str) -> Range:
    """Return the range of a quantized type.

    A signed type leaves out its lowest value, so that its range is symmetric around zero.

    Args:
        dtype: ``int2`` to ``int16``, ``uint1`` to ``uint16``, ``float8_e4m3fn`` or
            ``float8_e5m2``.

    Raises:
        ValueError: there is no such type.
    """
    if dtype in FLOAT8:
        largest = int(torch.finfo(FLOAT8[dtype]).max)
        return Range(-largest, largest)
    if dtype == "int32":
        # For biases; the largest that float32 holds below 2^31.
        return Range(128 - 2**31, 2**31 - 128)
    match = _INTEGER.match(dtype)
    if match:
        unsigned, bits = bool(match[1]), int(match[2])
        if unsigned and bits <= _LARGEST_BITS:
            return Range(0, 2**bits - 1)
        if not unsigned and 1 < bits <= _LARGEST_BITS:
            return Range(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    raise ValueError(
        f"quant_dtype {dtype!r}: expected int2 to int16, uint1 to uint16, {' or '.join(FLOAT8)}"
    )


def storage_type(quant_min: int, quant_max: int) -> torch.dtype:
    """Return the smallest integer type that holds a range.

    Args:
        quant_min: the smallest integer.
        quant_max: the largest integer.
    """
    for dtype in (torch.int8, torch.uint8, torch.int16):
        limits = torch.iinfo(dtype)
        if limits.min <= quant_min and quant_max <= limits.max:
            return dtype
    return torch.int32
