"""``TERSELY_TRACE``: which calls of plugins were made, how often, and how long they took."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tersely.text_table import Column, TextTable, ruled

TRACE = "TERSELY_TRACE"

Call = tuple[str, str, str]

_IN_FORWARD = frozenset({"simulate", "learned_values", "masked", "meaning"})
_CHOOSING_IN_FORWARD = frozenset({"FollowsTraining", "ChoosesPerCall"})
_calls: dict[Call, tuple[int, float]] = {}
"""Plugin, kind and what was called -> how often and how many seconds; printed at exit."""


def is_tracing() -> bool:
    """Tell whether the environment asks for a trace."""
    return os.environ.get(TRACE, "") not in ("", "0")


def note(plugin: str, kind: str, what: str, *, seconds: float) -> None:
    """Count a call of a plugin; the first one has the table printed when the process ends.

    Args:
        plugin: the distribution, or the qualified name of what was called.
        kind: the kind of thing, as in ``pruner``.
        what: the method, or what else was done.
        seconds: how long it took.
    """
    if not _calls:
        atexit.register(_print)
    count, total = _calls.get((plugin, kind, what), (0, 0.0))
    _calls[plugin, kind, what] = (count + 1, total + seconds)


@contextmanager
def timed(plugin: str, kind: str, what: str) -> Iterator[None]:
    """Count what happens inside as one call of a plugin, where the environment asks for it.

    Args:
        plugin: as for `note`.
        kind: as for `note`.
        what: as for `note`.
    """
    if not is_tracing():
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        note(plugin, kind, what, seconds=time.perf_counter() - began)


def traced(value: Callable[..., Any], plugin: str, kind: str) -> Callable[..., Any]:
    """Return an implementation whose calls are counted.

    Methods that run in a forward pass are left alone: nothing may interrupt what is compiled.

    Args:
        value: a class or a function.
        plugin: its qualified name.
        kind: the kind of thing.

    Returns:
        A subclass of the class with its name, or a function in place of the function.
    """
    if type(value).__hash__ is None:  # no two are told apart by a cache
        return _counting(value, plugin, kind, "call")
    return _traced_once(value, plugin, kind)


@functools.cache
def _traced_once(value: Callable[..., Any], plugin: str, kind: str) -> Callable[..., Any]:
    if not isinstance(value, type):
        return _counting(value, plugin, kind, "call")
    mro = {base.__name__ for base in value.__mro__}
    skipped = _IN_FORWARD | ({"choose"} if mro & _CHOOSING_IN_FORWARD else set())
    methods = {
        name: _counting(function, plugin, kind, name)
        for name, function in inspect.getmembers(value, inspect.isfunction)
        if not name.startswith("_") and name not in skipped
        if inspect.isfunction(inspect.getattr_static(value, name))
    }

    reduce: Any = value.__reduce_ex__

    def reduced(self: Any, protocol: int) -> Any:
        # Pickles as what it stands for: the class made here has no name to be found by.
        function, arguments, *rest = reduce(self, protocol)
        own = type(self)
        if function.__name__ == "__newobj__":  # of copyreg; it checks the class
            function = _new
        return (function, tuple(value if one is own else one for one in arguments), *rest)

    body = {**methods, "__reduce_ex__": reduced, "__module__": value.__module__}
    body |= {"__qualname__": value.__qualname__, "__doc__": value.__doc__}
    try:
        made: type = type(value)(value.__name__, (value,), body)
    except Exception:  # a class that cannot be inherited from may raise anything
        return value
    return made


def trace_lines() -> list[str]:
    """Return the table of all calls so far, what took longest first."""
    columns = [Column(heading=heading) for heading in ("plugin", "kind", "call")]
    columns += [Column(heading=heading, is_number=True) for heading in ("times", "seconds")]
    calls = sorted(_calls.items(), key=lambda item: -item[1][1])
    rows = [(*call, str(count), f"{seconds:.4f}") for call, (count, seconds) in calls]
    return ruled(TextTable(columns=tuple(columns), rows=tuple(rows)))


def _counting(
    function: Callable[..., Any], plugin: str, kind: str, what: str
) -> Callable[..., Any]:
    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        with timed(plugin, kind, what):
            return function(*args, **kwargs)

    return counted


def _new(cls: type, *arguments: Any) -> object:
    return cls.__new__(cls, *arguments)


def _print() -> None:
    # Not print: the variable works in any program, not only in the command line.
    sys.stderr.write("\n".join([f"calls of plugins ({TRACE})", *trace_lines(), ""]))
