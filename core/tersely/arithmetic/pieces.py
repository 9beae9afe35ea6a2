"""Cutting tensors into pieces that are worked on one after the other, to need little memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from torch import Tensor


def pieces(shape: Sequence[int], *, largest: int) -> Iterator[tuple[slice, ...]]:
    """Yield the indices of pieces that make up a tensor, each in one run of a contiguous one.

    Args:
        shape: the tensor's shape.
        largest: elements in a piece at most, 1 or more.
    """
    if 0 in shape:
        return
    if not shape:
        yield ()
        return
    # The first dimension of which one index is not too much; the ones before it go one by one.
    cut = next(dim for dim in range(len(shape)) if math.prod(shape[dim + 1 :]) <= largest)
    step = largest // math.prod(shape[cut + 1 :])
    singles = [[slice(index, index + 1) for index in range(length)] for length in shape[:cut]]
    runs = [slice(start, start + step) for start in range(0, shape[cut], step)]
    yield from itertools.product(*singles, runs)


def piece(tensor: Tensor, index: Sequence[slice]) -> Tensor:
    """Return the view of a tensor that belongs to a piece.

    Args:
        tensor: the tensor that was cut, or one that broadcasts against it in as many dimensions.
        index: what `pieces` yielded.
    """
    return tensor[
        tuple(
            slice(None) if length == 1 else part
            for part, length in zip(index, tensor.shape, strict=False)
        )
    ]
