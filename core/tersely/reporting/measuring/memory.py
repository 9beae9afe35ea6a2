"""How much more memory a call needs at its peak: of the process, or of the accelerator it uses."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import attrs
import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@attrs.define
class Peak:
    """A peak, known once its block has been left.

    Attributes:
        bytes: how much the memory in use grew at most, or None where the system does not tell.
    """

    bytes: int | None = None


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the peak growth of the memory in use inside a block.

    Where CUDA is in use, that of the current device counts; else that of the process, whatever
    allocates it, which Linux alone tells.
    """
    peak = Peak()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated() - before
        return
    _return_freed_memory()
    start = _reset()
    yield peak
    highest = _read("VmHWM")
    if start is not None and highest is not None:
        peak.bytes = max(0, highest - start)


def _return_freed_memory() -> None:
    """Give the system back what the allocator keeps, so that using it again counts."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset() -> int | None:
    try:
        _RESET.write_text("5")  # forget the highest use so far
    except OSError:
        return None
    return _read("VmRSS")


def _read(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
