"""Watches what a face does while it is loaded: how long it takes, and what it should not do."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import FunctionType, ModuleType

from tersely.registry.record import Loading

_TORCH = "torch"
_KEPT = 10_000
"""How many characters of what a face prints are kept."""


class _Printed(io.StringIO):
    """Standard output of a face, which stays open whatever the face does."""

    def close(self) -> None: ...


@contextmanager
def watched_loading() -> Iterator[Callable[[], Loading]]:
    """Watch the loading of one face, and keep what it prints to itself.

    Yields:
        Returns what was seen, once the block is left.
    """
    known = set(sys.modules)
    printed = _Printed()
    began = time.perf_counter()
    seconds = 0.0

    def seen() -> Loading:
        return Loading(
            seconds=seconds,
            imports_torch=_imported_torch(known),
            printed=printed.getvalue()[:_KEPT],
        )

    with redirect_stdout(printed):
        yield seen
    seconds = time.perf_counter() - began


def _imported_torch(known: set[str]) -> bool:
    new = set(sys.modules) - known
    if _TORCH in new:
        return True
    # Whoever comes after the first one finds it imported: its new modules show what they use.
    return _TORCH in known and any(_uses_torch(sys.modules[name]) for name in new)


def _uses_torch(module: ModuleType | None) -> bool:
    values = list(vars(module).values()) if isinstance(module, ModuleType) else []
    names = (_home(value) for value in values)
    return any(name == _TORCH or name.startswith(f"{_TORCH}.") for name in names)


def _home(value: object) -> str:
    # Not isinstance and getattr: a foreign metaclass may compute anything.
    kind = type(value)
    if issubclass(kind, ModuleType):
        name = vars(value).get("__name__")
    elif issubclass(kind, type):
        name = type.__dict__["__dict__"].__get__(value).get("__module__")
    else:
        name = value.__module__ if kind is FunctionType else None
    return name if isinstance(name, str) else ""
