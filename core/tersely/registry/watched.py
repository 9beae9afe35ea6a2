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


@contextmanager
def watched_loading() -> Iterator[Callable[[], Loading]]:
    """Watch the loading of one face, and keep what it prints to itself.

    Yields:
        Returns what was seen, once the block is left.
    """
    known = set(sys.modules)
    printed = io.StringIO()
    began = time.perf_counter()
    seconds = 0.0

    def seen() -> Loading:
        return Loading(
            seconds=seconds, imports_torch=_imported_torch(known), printed=printed.getvalue()
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
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, type | FunctionType):
        # Not getattr: a foreign metaclass may compute anything.
        name = vars(value).get("__module__") if isinstance(value, type) else value.__module__
        return name if isinstance(name, str) else ""
    return ""
