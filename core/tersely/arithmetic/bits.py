"""Bool tensors as one bit an element, eight to a byte, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pack_bits(values: Tensor) -> Tensor:
    """Return a bool tensor as bits.

    Args:
        values: bool, any shape and device.

    Returns:
        Shape (elements / 8, rounded up), uint8, on the CPU: element i in flat order is bit i % 8 of
        byte i // 8, the lowest bit first; what fills the last byte up is 0.
    """
    flat = values.detach().reshape(-1).cpu().numpy()
    return torch.from_numpy(np.packbits(flat, bitorder="little"))


def unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo `pack_bits`.

    Args:
        bits: what it returned.
        shape: the shape of what it was given.

    Returns:
        Bool, ``shape``, on the CPU.

    Raises:
        ValueError: the bits are not those of a tensor of this shape.
    """
    check_bits(bits, shape)
    unpacked = np.unpackbits(bits.numpy(), count=math.prod(shape), bitorder="little")
    # One byte an element already, 0 or 1: the same memory read as bool.
    return torch.from_numpy(unpacked.view(bool)).reshape(tuple(shape))


def check_bits(bits: Tensor, shape: Sequence[int]) -> None:
    """Refuse bits that are not those of a tensor of some shape.

    Args:
        bits: what `pack_bits` returned.
        shape: the shape of what it was given.

    Raises:
        ValueError: they are of another dtype, or too few or too many.
    """
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
        raise ValueError(
            f"expected {-(-count // 8)} bytes for a bool tensor of shape {list(shape)}, got shape "
            f"{list(bits.shape)} of {bits.dtype}"
        )
