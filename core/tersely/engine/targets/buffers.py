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
        if current is None or not is_replaced_by(current, value, dtype):
            break
        fitting.append(current)
    else:
        for current in fitting:
            _plain(current).copy_(_plain(value))
        return
    for module, name in places:
        module._buffers[name] = make()


def _plain(tensor: Tensor) -> Tensor:
    # Detaching costs a small tensor as much as copying it, and most need none.
    return tensor.detach() if tensor.requires_grad else tensor


def is_replaced_by(current: Tensor, value: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether a value can be written to a buffer in place.

    Args:
        current: what the buffer holds.
        value: the value.
        dtype: the dtype that the buffer has to have.
    """
    same = current.shape == value.shape and current.device == value.device
    return same and current.dtype == dtype
