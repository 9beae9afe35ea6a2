"""The progress of long work, reported to a listener such as a job with its progress bars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

T = TypeVar("T")

ProgressListener: TypeAlias = Callable[[str, int, int], object]
"""Called with what is counted, how much of it is done, and how much there is.

With 0 of 1 where one thing begins that does not count itself, as a step of an export.
"""

_listener: ContextVar[ProgressListener | None] = ContextVar("progress", default=None)


@contextlib.contextmanager
def progress_listener(listener: ProgressListener) -> Iterator[None]:
    """Report the progress of work inside the block to the listener.

    Args:
        listener: called after each part, in the thread that works.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def with_progress(parts: Sequence[T], title: str) -> Iterator[T]:
    """Yield the parts of some work, and report each as done afterwards.

    Args:
        parts: what to go through.
        title: what is counted, as in ``blocks compressed``.
    """
    for number, part in enumerate(parts, start=1):
        yield part
        listener = _listener.get()
        if listener is not None:
            listener(title, number, len(parts))


class Steps:
    """Steps of some work, one after another; a class, because one ends where the next begins.

    Args:
        subject: what is worked on, reported before each step, as in ``onnx: write``.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._current: str | None = None

    def begin(self, title: str) -> None:
        """Report that a step begins and that the previous one is done.

        Args:
            title: what is done now, as a verb phrase.
        """
        self.end()
        self._current = title
        self._report(title, 0)

    def end(self) -> None:
        """Report that the current step, if any, is done."""
        if self._current is not None:
            self._report(self._current, 1)
            self._current = None

    @contextlib.contextmanager
    def within(self, title: str) -> Iterator[None]:
        """Report a step that interrupts another one, which continues after the block.

        Args:
            title: what is done in the block.
        """
        before = self._current
        self.begin(title)
        yield
        if before is None:
            self.end()
        else:
            self.begin(before)

    def _report(self, title: str, done: int) -> None:
        listener = _listener.get()
        if listener is not None:
            listener(f"{self._subject}: {title}", done, 1)
