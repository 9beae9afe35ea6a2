"""Integers of any bit width, packed into bytes without gaps, the lowest bit first."""

from __future__ import annotations

import numpy

_PIECE = 1 << 18
"""Integers packed at a time, a multiple of 8; unpacked, each bit takes a byte."""

_WORD = 32


def pack_bits(values: numpy.ndarray, bits: int, *, offset: int = 0) -> numpy.ndarray:
    """Return integers as a stream of bits.

    Args:
        values: shape (n,), integers from ``offset`` to ``offset`` + 2**bits - 1.
        bits: the bits of each integer, 1 to 32.
        offset: the number subtracted from each.

    Returns:
        uint8, shape (ceil(n * bits / 8),): bit i of value k is bit (k * bits + i) % 8 of byte
        (k * bits + i) // 8. The last byte is filled with zeros.
    """
    pieces = [
        numpy.packbits(_bits_of(values[start : start + _PIECE], bits, offset), bitorder="little")
        for start in range(0, len(values), _PIECE)
    ]
    return numpy.concatenate(pieces) if pieces else numpy.empty(0, numpy.uint8)


def unpack_bits(stream: numpy.ndarray, bits: int, count: int) -> numpy.ndarray:
    """Return the integers of a stream of bits.

    Args:
        stream: uint8, as `pack_bits` returns it.
        bits: the bits of each integer.
        count: the number of integers.

    Returns:
        int32, shape (count,); int64 for 32 bits.
    """
    found = numpy.empty(count, numpy.int32 if bits < _WORD else numpy.int64)
    for start in range(0, count, _PIECE):
        length = min(_PIECE, count - start)
        part = stream[start * bits // 8 :]
        flat = numpy.unpackbits(part[: -(-length * bits // 8)], bitorder="little")
        words = numpy.zeros((length, _WORD), numpy.uint8)
        words[:, :bits] = flat[: length * bits].reshape(length, bits)
        packed = numpy.packbits(words, axis=1, bitorder="little")
        found[start : start + length] = packed.view("<u4").reshape(-1)
    return found


def _bits_of(values: numpy.ndarray, bits: int, offset: int) -> numpy.ndarray:
    rows = (
        (values.astype(numpy.int64) - offset)
        .astype("<u4")
        .view(numpy.uint8)
        .reshape(-1, _WORD // 8)
    )
    found: numpy.ndarray = numpy.unpackbits(rows, axis=1, count=bits, bitorder="little")
    return found.reshape(-1)
