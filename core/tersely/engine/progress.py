"""How far long work is, told to whoever listens, such as a job with its bars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Telling: TypeAlias = Callable[[str, int, int], object]
"""Called with what is counted, how much of it is done, and how much there is."""

_listener: ContextVar[Telling | None] = ContextVar("progress", default=None)


@contextlib.contextmanager
def telling(listener: Telling) -> Iterator[None]:
    """Tell a listener how far work is that is done inside the block.

    Args:
        listener: called after each part, in the thread that works.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def told(parts: Sequence[T], title: str) -> Iterator[T]:
    """Yield the parts of some work, and tell after each that it is done.

    Args:
        parts: what to go through.
        title: what is counted, as in ``blocks compressed``.
    """
    for number, part in enumerate(parts, start=1):
        yield part
        listener = _listener.get()
        if listener is not None:
            listener(title, number, len(parts))
