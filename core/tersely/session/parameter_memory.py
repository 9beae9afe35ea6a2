"""Which memory parameters have, noted without keeping it alive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Memories:
    """The memory of some tensors, each a number that no other memory gets while this lives.

    PyTorch has such references one by one (``StorageWeakRef``), which for the parameters of a large
    model are as many objects for Python's garbage collector; here they are plain numbers in one. A
    copy notes nothing, since each reference is given back once.

    Args:
        tensors: the tensors, or None where there is none.
    """

    def __init__(self, tensors: Iterable[Tensor | None]) -> None:
        # A module may be gone when the program ends.
        self._free: Any = torch.UntypedStorage._free_weak_ref
        self.numbers = [_noted(one) for one in tensors]
        """For each tensor the number of its memory; 0 where it has none."""

    def __reduce__(self) -> tuple[type[Memories], tuple[tuple[()]]]:
        return type(self), ((),)

    def __del__(self) -> None:
        for number in self.numbers:
            if number:
                self._free(number)


def number_of(tensor: Tensor | None) -> int:
    """Return the number of a tensor's memory, or 0 where it has none.

    Args:
        tensor: any tensor, or None.
    """
    if tensor is None or tensor.layout is not torch.strided:
        return 0
    return int(tensor.untyped_storage()._cdata)


def _noted(tensor: Tensor | None) -> int:
    if tensor is None or tensor.layout is not torch.strided:
        return 0
    storage: Any = tensor.untyped_storage()
    return int(storage._weak_ref())
