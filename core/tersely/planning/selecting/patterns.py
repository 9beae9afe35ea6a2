"""Which names a pattern matches, in bounded time: backtracking can take practically forever.

Almost every pattern is matched at once. One whose form allows catastrophic backtracking is matched
in a process of its own, which the operating system ends when its time is used up: Python's engine
cannot be interrupted, and any other engine would decide some names otherwise (rule S3).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tersely.errors import PlanError

if sys.version_info >= (3, 11):
    from re import _parser  # type: ignore[attr-defined]  # typeshed lacks its name of 3.11
else:
    import sre_parse as _parser

SECONDS = 5
"""Processor time that one pattern may take; names of modules need some milliseconds."""

_WALL_SECONDS = 120  # for systems that cannot limit processor time, and for what hangs otherwise
# Three repetitions and three alternatives are well below a second on any name.
_REPETITION, _BRANCH, _MOST = 4, 1, 15
_SHORT = 400  # characters

# Isolated and without site packages, so that it starts in some hundredths of a second.
_WORKER = """
import json, re, sys, warnings
try:
    import resource
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
warnings.simplefilter("ignore")
pattern, names = json.load(sys.stdin)
match = re.compile(pattern).match
print(json.dumps([index for index, name in enumerate(names) if match(name)]))
"""


def matches(pattern: str, names: Sequence[str], *, path: str) -> list[int]:
    """Return the indices of the names that a pattern matches from their start.

    Args:
        pattern: a valid regular expression.
        names: the names.
        path: the place of the pattern in the document.

    Raises:
        PlanError: matching takes too long.
    """
    is_embedded = not sys.executable  # then there is no interpreter to start
    if is_embedded or is_quick(pattern, longest=max(map(len, names), default=0)):
        match = re.compile(pattern).match
        return [index for index, name in enumerate(names) if match(name)]
    return _matches_apart(pattern, names, path=path)


def is_quick(pattern: str, *, longest: int = 0) -> bool:
    """Tell whether the form of a pattern rules out that matching takes long.

    A match tries every way to split a name over what can vary in length. With a few such parts,
    none inside another, there are some hundred thousand ways at most.

    Args:
        pattern: a valid regular expression.
        longest: the length of the longest name.
    """
    weight = _weight_of(pattern)
    return longest <= _SHORT and weight is not None and weight <= _MOST


@lru_cache(maxsize=4096)
def _weight_of(pattern: str) -> int | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _weight(_parser.parse(pattern))


def _weight(tree: Any) -> int | None:
    """Weigh the parts that can match in several ways; None where one is inside a repetition."""
    total = 0
    for operator, argument in tree:
        kind = str(operator)
        if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            low, high, inside = argument
            inner = _weight(inside)
            if inner is None or (inner and int(high) > 1):
                return None
            total += inner + (_REPETITION if low != high else 0)
            continue
        parts = _parts(kind, argument)
        if kind == "BRANCH":
            total += _BRANCH
        for part in parts:
            inner = _weight(part)
            if inner is None:
                return None
            total += inner
    return total


def _parts(kind: str, argument: Any) -> list[Any]:
    if kind == "BRANCH":
        return list(argument[1])
    if kind in ("SUBPATTERN", "ASSERT", "ASSERT_NOT"):
        return [argument[-1]]
    if kind == "ATOMIC_GROUP":
        return [argument]
    if kind == "GROUPREF_EXISTS":
        return [part for part in argument[1:] if part is not None]
    return []


def _matches_apart(pattern: str, names: Sequence[str], *, path: str) -> list[int]:
    command = [sys.executable, "-I", "-S", "-c", _WORKER.replace("{seconds}", str(SECONDS))]
    try:
        done = subprocess.run(
            command,
            input=json.dumps([pattern, list(names)]),
            capture_output=True,
            text=True,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _too_long(pattern, path) from error
    if done.returncode < 0:
        raise _too_long(pattern, path)
    if done.returncode:
        reason = (done.stderr.splitlines() or ["it ended without output"])[-1]
        raise PlanError(f"{path}: the pattern cannot be matched: {reason}", path=path)
    found: list[int] = json.loads(done.stdout)
    return found


def _too_long(pattern: str, path: str) -> PlanError:
    shown = pattern if len(pattern) <= _SHORT else f"{pattern[:_SHORT]}..."
    return PlanError(
        f"{path}: {shown!r} takes more than {SECONDS} seconds to match the names of this model, "
        "because repetitions are nested or too many follow one another; write "
        r"[^.]* for a part of a name, or list the names in op_names",
        path=path,
    )
