"""Errors of parts that know a target by its name alone, completed with what its plan says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tersely.contracts.kinds import Method
from tersely.errors import PlacedError
from tersely.planning.plan import Plan


@contextlib.contextmanager
def placing(plan: Plan, *, method: Method | None = None) -> Iterator[None]:
    """Let an error that names a target carry the target's entry and algorithm as well.

    Args:
        plan: the session's.
        method: the method whose targets are worked on; with None an error about a target of
            several methods stays as it is.
    """
    try:
        yield
    except PlacedError as error:
        places = [
            one.place
            for one in plan.targets
            if one.name == error.target and method in (None, one.method)
        ]
        if len(places) == 1:
            error.path = error.path or places[0]["path"]
            error.algorithm = error.algorithm or places[0]["algorithm"]
        raise
