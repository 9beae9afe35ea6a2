"""Memory for results of the size of large weights, written to again where it is free again.

Fresh memory is written to for the first time at a fifth of the speed: the system hands it out page
by page. The weights of all experts of a layer are more than an allocator keeps for the next call.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tersely.arithmetic.levels import is_cut

_Key: TypeAlias = tuple[torch.Size, torch.dtype, bool]

_count: Any = getattr(torch._C, "_storage_Use_Count", None)  # of torch 2.1 and later


class Reused:
    """One piece of memory for each shape and dtype of results; mutable, as results come and go.

    The memory of a result that is no longer used serves the next similar result. Copies and
    pickles come without memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[_Key, tuple[Tensor, int]] = {}

    @contextlib.contextmanager
    def offered(self) -> Iterator[None]:
        """Let `empty_like` of this thread take memory from here inside the block."""
        before = getattr(_offers, "reused", None)
        _offers.reused = self
        try:
            yield
        finally:
            _offers.reused = before

    def like(self, value: Tensor) -> Tensor:
        """Return a tensor of arbitrary values, in memory that is not shared.

        Args:
            value: what it is like, on the processor.
        """
        key = (value.shape, value.dtype, torch.is_inference_mode_enabled())
        with self._lock:
            if key not in self._kept:
                made = torch.empty(value.shape, dtype=value.dtype)
                self._kept[key] = (made, _holders(made))
            kept, alone = self._kept[key]
            if _holders(kept) != alone:
                return torch.empty(value.shape, dtype=value.dtype)
            # A tensor of its own and no view: views and writes of others end with it.
            room = torch.empty(0, dtype=value.dtype)
            return room.set_(kept.untyped_storage(), 0, kept.shape, kept.stride())

    def __deepcopy__(self, memo: dict[int, Any]) -> Reused:
        return Reused()

    def __reduce__(self) -> tuple[type[Reused], tuple[()]]:
        return Reused, ()


_offers = threading.local()


def _holders(tensor: Tensor) -> int:
    return int(_count(tensor.untyped_storage()._cdata))


def empty_like(value: Tensor) -> Tensor:
    """Return a tensor of any values for a result of a weight's size.

    Args:
        value: what it is like.
    """
    reused: Reused | None = getattr(_offers, "reused", None)
    is_plain = type(value) in (Tensor, nn.Parameter) and value.is_contiguous()
    if reused is None or _count is None or not is_plain or not is_cut(value):
        return torch.empty_like(value)
    return reused.like(value)


def multiply(value: Tensor, factor: Tensor) -> Tensor:
    """Return a product of a weight.

    Args:
        value: the weight.
        factor: a shape that broadcasts to it, of its dtype.
    """
    wants_gradient = torch.is_grad_enabled() and (value.requires_grad or factor.requires_grad)
    if wants_gradient or getattr(_offers, "reused", None) is None or not is_cut(value):
        return value * factor
    with torch.no_grad():
        return torch.mul(value, factor, out=empty_like(value))
