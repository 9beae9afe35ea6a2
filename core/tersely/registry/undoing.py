"""Puts back what a face changes in the process while it is loaded, and tells what that was."""

from __future__ import annotations

import builtins
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import is_
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD")
    if hasattr(signal, name)
)


_WARNING = 30  # the number of the level, without an import of logging
_FRESH_LOGGING: tuple[Any, ...] = (_WARNING, 0, [])


@attrs.frozen
class Part:
    """One thing that all code of a process shares.

    Attributes:
        name: what it is, in words.
        read: returns its value now.
        write: puts back such a value.
        holds_objects: whether the value is a mapping of objects, which are compared by identity,
            since a foreign ``__eq__`` may do anything; additions to it do not count as changes.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    holds_objects: bool = False

    def is_kept(self, before: Any) -> bool:
        """Tell whether the value is still the one that was read before."""
        now = self.read()
        if self.holds_objects:
            return all(map(is_, map(now.get, before), before.values()))
        return bool(before == now)


ProcessState = tuple[tuple[Part, Any], ...]


def process_state() -> ProcessState:
    """Return what `undone` puts back; read once for many faces, since reading takes time."""
    return tuple((part, part.read()) for part in _PARTS)


@contextmanager
def undone(before: ProcessState) -> Iterator[Callable[[], tuple[str, ...]]]:
    """Put back what foreign code in the block changes in the process.

    That is what careless code changes, and what would reach everybody else. Nothing guards a
    process against code that runs in it: memory, files, threads, and what is changed inside of
    objects stay as they are.

    Args:
        before: what to put back.

    Yields:
        Returns what was changed, in words, once the block is left.
    """
    changed: list[str] = []
    added: list[Any] = []
    threads = set(threading.enumerate())
    stdin, sys.stdin = sys.stdin, io.StringIO()  # a face that asks a question gets no answer
    try:
        with warnings.catch_warnings():
            filters = list(warnings.filters)
            try:
                yield lambda: tuple(changed)
            finally:
                added += (
                    one for one in warnings.filters if one not in filters and _is_of_some(one)
                )
                if [one for one in warnings.filters if one not in added] != filters:
                    changed.append("changes the filters of warnings")
        _filter_again(added)
    finally:
        sys.stdin = stdin
        for part, value in before:
            if not part.is_kept(value):
                part.write(value)
                changed.append(f"changes {part.name}")
        if any(thread.is_alive() for thread in set(threading.enumerate()) - threads):
            changed.append("starts threads")


def _is_of_some(entry: Any) -> bool:
    """Tell whether a filter is of some warnings alone, as libraries add them when imported."""
    _, message, _, module, _ = entry
    return message is not None or module is not None


def _filter_again(entries: list[Any]) -> None:
    for action, message, category, module, line in reversed(entries):
        texts = {"message": message, "module": module}
        patterns = {name: one.pattern for name, one in texts.items() if one is not None}
        warnings.filterwarnings(action, category=category, lineno=line, **patterns)


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # somebody removed it
        return None


def _enter(folder: Path | None) -> None:
    if folder is not None and folder.is_dir():
        os.chdir(folder)


def _set_environment(wanted: dict[str, str]) -> None:
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)


def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
    # No other thread than the main one can set them, so none was changed there.
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if handler is not None:  # None: set by other code than Python's, and out of its reach
                signal.signal(number, handler)


def _logging() -> tuple[Any, ...]:
    if "logging" not in sys.modules:
        return _FRESH_LOGGING  # as it is once somebody imports it
    import logging  # imported already, see above

    return logging.root.level, logging.root.manager.disable, list(logging.root.handlers)


def _set_logging(wanted: tuple[Any, ...]) -> None:
    import logging  # imported by the face, if not before

    level, disable, handlers = wanted
    logging.root.setLevel(level)
    logging.disable(disable)
    logging.root.handlers[:] = handlers


def _random_state() -> object:
    random = sys.modules.get("random")
    return random.getstate() if random is not None else None


def _set_random_state(state: Any) -> None:
    if state is not None:
        sys.modules["random"].setstate(state)


def _set_path(path: list[str]) -> None:
    sys.path[:] = path


def _objects(name: str, module: ModuleType) -> Part:
    return Part(name, lambda: dict(vars(module)), vars(module).update, holds_objects=True)


def _handlers() -> dict[signal.Signals, object]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


_PARTS = (
    # First of all, since the others need them.
    _objects("builtins", builtins),
    Part("imported modules", lambda: dict(sys.modules), sys.modules.update, holds_objects=True),
    _objects("names of tersely", sys.modules["tersely"]),
    Part("the working directory", _folder, _enter),
    Part("the environment", lambda: dict(os.environ), _set_environment),
    Part("sys.path", lambda: list(sys.path), _set_path),
    Part("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Part("signal handlers", _handlers, _set_handlers, holds_objects=True),
    Part("logging", _logging, _set_logging),
    Part("the random state", _random_state, _set_random_state),
    Part(
        "sys.stderr or sys.excepthook",
        lambda: {"stderr": sys.stderr, "excepthook": sys.excepthook},
        vars(sys).update,
        holds_objects=True,
    ),
)
