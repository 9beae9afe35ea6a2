"""What pruning was before a step in which a stage begins, to take it back after a failure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tersely.contracts.pruner import Solves
from tersely.pruning.engine import Pruning
from tersely.pruning.journal import Journal


@contextlib.contextmanager
def beginning(pruning: Pruning, steps: int) -> Iterator[bool]:
    """Tell whether a stage begins with a step; then pruning is taken back if the block fails.

    Args:
        pruning: the session's pruning.
        steps: optimizer steps so far, the one that comes counted.
    """
    if all(stage.begin != steps for stage in pruning.plan.recipe.stages):
        yield False
        return
    before = _Before(pruning, steps)
    try:
        yield True
    except BaseException:
        before.take_back()
        raise


class _Before:
    """Masks, observations and the clock before a step."""

    def __init__(self, pruning: Pruning, steps: int) -> None:
        solving = [run for run in pruning.runs if isinstance(run.pruner, Solves)]
        changing = [run for run in solving if run.stage.begin == steps or run.is_due(steps)]
        self._journal = Journal()
        self._journal.note(pruning.handles, [one for run in changing for one in run.handles])
        self._pruning = pruning
        self._steps, self._is_compressed = pruning.steps, pruning.is_compressed
        self._statistics, self._originals = dict(pruning.statistics), dict(pruning.originals)
        self._waiting = [run for run in pruning.runs if run.stage.begin == steps]
        # Sums grow in place.
        self._observed = [
            {
                handle: {name: tensor.clone() for name, tensor in sums.items()}
                for handle, sums in run.observed.items()
            }
            for run in pruning.runs
        ]

    def take_back(self) -> None:
        pruning = self._pruning
        self._journal.undo(pruning.model)
        pruning.steps, pruning.is_compressed = self._steps, self._is_compressed
        pruning.statistics, pruning.originals = self._statistics, self._originals
        for run, observed in zip(pruning.runs, self._observed, strict=True):
            run.observed = observed
        for run in self._waiting:
            run.unstart()
