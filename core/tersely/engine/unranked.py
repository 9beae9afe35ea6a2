"""Targets for which calibration observed nothing, decided by their own weights alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from tersely.engine.run import Run
from tersely.errors import CompressionWarning

_SHOWN = 10


def warn_of_unranked(runs: Iterable[Run[Any]], outcome: str) -> None:
    """Warn once of all targets whose inputs were zero, or that no row reached.

    Args:
        runs: the stages; targets that an earlier warning named are left out.
        outcome: what became of the targets.
    """
    names = []
    for run in runs:
        names += [name for name in dict.fromkeys(run.unranked) if name not in run.warned_of]
        run.warned_of.update(run.unranked)
        run.unranked.clear()
    if not names:
        return
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    warnings.warn(
        f"calibration observed nothing for {len(names)} targets: no row reached their modules, or "
        f"all of what they saw or produced was zero; they are {outcome}: "
        f"{', '.join(names[:_SHOWN])}{more}; calibrate with batches that reach them",
        CompressionWarning,
        stacklevel=5,
    )
