"""The calibration batches of a job and the example inputs of its model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tersely.document.job import Job
from tersely.errors import ConfigError, Problem
from tersely.jobs.generators import seed_generators
from tersely.jobs.labels import WithoutLabels
from tersely.jobs.references import Call


def calibration_batches(job: Job, calibration: Call | None) -> Iterable[object]:
    """Return the batches of ``data.calibration`` without their labels; none where there are none.

    Args:
        job: the job.
        calibration: what its reference stands for.
    """
    batches: Iterable[object] = () if calibration is None else calibration()
    return WithoutLabels(batches, job.source) if job.data.labels else batches


def example_inputs(job: Job, *, example: Call | None, calibration: Call | None) -> Any:
    """Return what a job's model is run with where its graph is needed.

    Args:
        job: the job.
        example: what its ``data.example`` stands for, or None for the first calibration batch.
        calibration: what its ``data.calibration`` stands for, or None.

    Raises:
        ConfigError: there is neither, or it gives nothing.
    """
    seed_generators(job.seed)
    if example is not None:
        found, path = example(), "data.example"
    elif calibration is not None:
        found, path = next(iter(calibration_batches(job, calibration)), None), "data.calibration"
    else:
        message = "the job has neither data.example nor data.calibration to run its model with"
        hint = (
            "write data: {example: 'module:callable'}, which returns what the model is called with"
        )
        raise ConfigError([Problem("data", message, hint)], source=job.source)
    if found is None:
        message = "gave nothing, expected example inputs of the model"
        hint = "return a tensor, a list of arguments or a mapping of keyword arguments"
        raise ConfigError([Problem(path, message, hint)], source=job.source)
    return found
