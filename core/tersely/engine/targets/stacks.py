"""Small tensors of one kind taken together: a call costs more than what it computes of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

SMALL = 1 << 12
"""Up to this many values a tensor is taken together with others."""

FEW = 4
"""Fewer of one kind are decided on one after the other."""

_AT_A_TIME = 1 << 20  # values in one stack, so that it takes a few megabytes

_PLAIN = (Tensor, nn.Parameter)


def kinds_of(tensors: Sequence[Tensor]) -> tuple[list[list[int]], list[int]]:
    """Sort small tensors by their kind, which is their shape, dtype and device.

    Args:
        tensors: the tensors; large, empty, sharded, sparse and meta ones are of no kind.

    Returns:
        The positions of each kind, in order, and the positions of those of no kind.
    """
    alike: dict[tuple[torch.Size, torch.dtype, torch.device], list[int]] = {}
    others = []
    for position, tensor in enumerate(tensors):
        is_plain = type(tensor) in _PLAIN and tensor.layout is torch.strided
        if is_plain and 0 < tensor.numel() <= SMALL and not tensor.is_meta:
            kind = (tensor.shape, tensor.dtype, tensor.device)
            alike.setdefault(kind, []).append(position)
        else:
            others.append(position)
    return list(alike.values()), others


def portions_of(positions: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield as many positions at a time as have a few megabytes of values.

    Args:
        positions: of tensors of one kind.
        size: how many values each of them has.
    """
    at_a_time = max(_AT_A_TIME // max(size, 1), 1)
    for start in range(0, len(positions), at_a_time):
        yield positions[start : start + at_a_time]


def stacks_of(
    tensors: Sequence[Tensor], positions: Sequence[int]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield tensors of one kind in stacks of a few megabytes.

    Args:
        tensors: the tensors.
        positions: which of them to take, all of one kind.

    Yields:
        The positions of some, and a new tensor of shape (as many, *their shape) without a graph.
    """
    for some in portions_of(positions, tensors[positions[0]].numel()):
        with torch.no_grad():
            stack = torch.stack([tensors[position] for position in some])
        yield some, stack
