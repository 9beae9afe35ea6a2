"""Buffers that tersely adds to the user's modules, written in place wherever that is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def put_buffer(
    holders: Iterable[tuple[nn.Module, str]],
    value: Tensor,
    *,
    dtype: torch.dtype,
    make: Callable[[], Tensor],
) -> None:
    """Put a tensor into the buffer of every holder of a target.

    Editing in place keeps the tensors that compiled graphs and other processes know.

    Args:
        holders: each module with the name of its buffer.
        value: what is copied where the buffers have its shape and device, and the dtype.
        dtype: the dtype that the buffers have, into which ``value`` is converted.
        make: returns a holder's new buffer where they do not fit.
    """
    places = list(holders)
    fitting = []
    for module, name in places:
        current = module._buffers.get(name)
        if current is None or not _fits(current, value, dtype):
            break
        fitting.append(current)
    else:
        for current in fitting:
            current.detach().copy_(value)
        return
    for module, name in places:
        module._buffers[name] = make()


def _fits(current: Tensor, value: Tensor, dtype: torch.dtype) -> bool:
    same = current.shape == value.shape and current.device == value.device
    return same and current.dtype == dtype
