"""The calibration batches of a job, as its model takes them."""

from __future__ import annotations

from collections.abc import Iterable

from tersely.jobs.labels import WithoutLabels
from tersely.jobs.run import Run


def calibration_batches(run: Run) -> Iterable[object]:
    """Return the batches of ``data.calibration`` without their labels; none where there are none.

    Args:
        run: the run.
    """
    batches: Iterable[object] = () if run.calls.calibration is None else run.calls.calibration()
    return WithoutLabels(batches, run.job.source) if run.job.data.labels else batches
