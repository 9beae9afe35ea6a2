"""How much quantized weights take, against what they took as float32."""

from __future__ import annotations

import re

import attrs

FLOAT_BITS = 32
_INTEGER = re.compile(r"u?int([1-9][0-9]?)\Z")
_BYTES = 8
_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000


@attrs.frozen
class QuantizedSize:
    """The size of quantized parameters and buffers, scales and zero points included.

    Attributes:
        elements: how many elements they have.
        bits: how many bits these take when every integer takes no more than its type needs.
    """

    elements: int = 0
    bits: int = 0

    @property
    def bits_per_weight(self) -> float:
        """Bits of one element on average; 0 when nothing is quantized."""
        return self.bits / self.elements if self.elements else 0.0

    @property
    def share(self) -> float:
        """The size as a share of that of float32; 0 when nothing is quantized."""
        return self.bits_per_weight / FLOAT_BITS

    def __str__(self) -> str:
        before = spell_bytes(self.elements * FLOAT_BITS // _BYTES)
        return f"{before} -> {spell_bytes(-(-self.bits // _BYTES))}"


def bits_of(dtype: str) -> int:
    """Return how many bits a quantized type has.

    Args:
        dtype: such as ``int4`` or ``float8_e4m3fn``.
    """
    match = _INTEGER.match(dtype)
    return int(match[1]) if match else _BYTES  # anything else is a float8


def stored_bits(dtype: str, *, elements: int, scales: int, affine: bool) -> int:
    """Return how many bits a quantized tensor takes.

    Args:
        dtype: its type.
        elements: how many elements it has.
        scales: how many scales of float32 it has; 0 where they follow from others.
        affine: whether each scale has a zero point, of the tensor's type.
    """
    each = FLOAT_BITS + (bits_of(dtype) if affine else 0)
    return elements * bits_of(dtype) + scales * each


def spell_bytes(count: int) -> str:
    """Return a number of bytes with a decimal unit and three digits or four.

    Args:
        count: how many bytes.
    """
    size, unit = float(count), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    return f"{count} B" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def spell_count(count: int) -> str:
    """Return a number of weights as people say it.

    Args:
        count: how many.
    """
    for limit, unit in ((10**9, "G"), (10**6, "M")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count:,}"
