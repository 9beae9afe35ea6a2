"""Several processes that train one model: what they observed and learned, brought together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")


def is_distributed() -> bool:
    """Tell whether this process is one of several that work together."""
    return distributed.is_available() and distributed.is_initialized()


def gather(own: Value) -> list[Value]:
    """Return what every process says, this one's alone where there are no others.

    Args:
        own: what this process says; any picklable value.
    """
    if not is_distributed():
        return [own]
    everyone = [own] * distributed.get_world_size()
    distributed.all_gather_object(everyone, own)
    return everyone


def summed(tensor: Tensor) -> Tensor:
    """Return a tensor added up over all processes; a copy only where there are several.

    Args:
        tensor: this process's part, of one shape and dtype everywhere.
    """
    if not is_distributed():
        return tensor
    total = tensor.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


def average_gradients(tensors: Sequence[Tensor]) -> None:
    """Give every process the mean of all processes' gradients, in place.

    A gradient that some processes lack counts as zero there; one that all lack stays None.

    Args:
        tensors: leaves, in the same order everywhere.
    """
    if not is_distributed():
        return
    world = distributed.get_world_size()
    for alike in _alike(tensors):
        # One call for all of them, and with it how many processes have each gradient.
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in alike]
        present = torch.tensor([float(one.grad is not None) for one in alike])
        flat = torch.cat([part.flatten() for part in parts] + [present.to(parts[0])])
        distributed.all_reduce(flat)
        sizes = [*(part.numel() for part in parts), len(parts)]
        pieces = torch.split(flat, sizes)
        for one, piece, count in zip(alike, pieces[:-1], pieces[-1].tolist(), strict=True):
            if count:
                one.grad = (piece / world).view_as(one)


def is_equal_everywhere(tensors: Sequence[Tensor]) -> bool:
    """Tell whether tensors have the same values in all processes; all of them answer alike.

    Args:
        tensors: of the same number, order and shapes everywhere.
    """
    if not is_distributed():
        return True
    is_equal = True
    for alike in _alike(tensors):
        flat = torch.cat([one.detach().flatten() for one in alike])
        both = torch.cat([flat, -flat])
        distributed.all_reduce(both, op=distributed.ReduceOp.MAX)
        highest, lowest = both.chunk(2)
        is_equal = is_equal and torch.equal(highest, -lowest)
    return is_equal


def _alike(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    yield from groups.values()
