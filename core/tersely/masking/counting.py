"""Counting and gathering in large tensors, a chunk at a time: intermediate results stay in cache.

On the CPU this is NumPy's work: its comparisons into bool and its counts of them are vectorized,
where PyTorch's take three to ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 15
"""Values of a CPU tensor compared at a time.

Comparison results stay in cache, and torch runs an operation of this size on one thread: thousands
of small parallel ones are twice as fast on idle cores, and 30 times slower where cores are shared.
"""

ARRAY_CHUNK = 1 << 16
"""Values of an array compared at a time: NumPy has one thread, and calls cost more than cache."""

ACCELERATOR_CHUNK = 1 << 24
"""Values of other tensors compared at a time: few calls, and little memory between them."""

_SHARED = (torch.float32, torch.float64, torch.bool)


def chunks_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return a flat tensor as views of as many values as are best compared at a time.

    Args:
        tensor: flat.
    """
    return torch.split(tensor, CHUNK if tensor.is_cpu else ACCELERATOR_CHUNK)


def count_nonzero(tensor: Tensor) -> int:
    """Return how many values are not 0.

    Args:
        tensor: any shape, bool or float.
    """
    flat = tensor.detach().reshape(-1)
    if not flat.is_cpu:
        return int(flat.count_nonzero())
    if flat.dtype == torch.bool:
        return int(np.count_nonzero(flat.numpy()))
    # Compared first: NumPy counts bools much faster than it counts floats.
    if flat.numel() <= ARRAY_CHUNK and flat.dtype in _SHARED:
        return int(np.count_nonzero(flat.numpy() != 0))
    return sum(int(np.count_nonzero(part != 0)) for part in _arrays_of(flat))


def count_equal(tensor: Tensor, value: float) -> int:
    """Return how many values are equal to one.

    Args:
        tensor: flat, float.
        value: representable in the tensor's dtype.
    """
    if not tensor.is_cpu:
        return sum(int((chunk == value).count_nonzero()) for chunk in chunks_of(tensor))
    return sum(int(np.count_nonzero(part == value)) for part in _arrays_of(tensor))


def cut_between(tensor: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """Return how many values are at most ``low``, and those strictly between the two.

    Args:
        tensor: flat, float.
        low: representable in the tensor's dtype, or infinite.
        high: likewise, at least ``low``.
    """
    count, parts = 0, []
    if not tensor.is_cpu:
        for chunk in chunks_of(tensor):
            reached = chunk <= low
            count += int(reached.count_nonzero())
            parts.append(chunk[(chunk < high) & ~reached])
        return count, torch.cat(parts)
    at_most, inside = np.empty(ARRAY_CHUNK, bool), np.empty(ARRAY_CHUNK, bool)
    for values in _arrays_of(tensor):
        reached = np.less_equal(values, low, out=at_most[: len(values)])
        count += int(np.count_nonzero(reached))
        # What is below high and has not reached low.
        found = np.less(values, high, out=inside[: len(values)])
        parts.append(torch.from_numpy(values[np.greater(found, reached, out=found)]))
    return count, torch.cat(parts).to(tensor.dtype)


def as_array(chunk: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """Return a CPU tensor's values as an array, in float32 where NumPy has no such dtype.

    Args:
        chunk: float or bool; where the dtype allows the array shares its memory, so read it only.
    """
    exact = chunk if chunk.dtype in _SHARED else chunk.float()
    array: np.ndarray[Any, np.dtype[Any]] = exact.numpy()
    return array


def _arrays_of(tensor: Tensor) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
    """Yield a flat CPU tensor's values, a chunk at a time."""
    if tensor.dtype in _SHARED:
        whole = as_array(tensor)
        for start in range(0, len(whole), ARRAY_CHUNK):
            yield whole[start : start + ARRAY_CHUNK]
    else:
        for chunk in torch.split(tensor, ARRAY_CHUNK):
            yield as_array(chunk)
