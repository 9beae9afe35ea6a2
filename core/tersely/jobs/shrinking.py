"""What a job shrinks with, and the shrinking that no training step does."""

from __future__ import annotations

from typing import Any

from tersely.document.job import Job
from tersely.document.recipe import AUTO
from tersely.jobs.calibrating import example_inputs
from tersely.jobs.run import Run


def example_of(run: Run) -> Any:
    """Return example inputs of a job's model, or None where its recipe has no use for them.

    Args:
        run: the run.

    Raises:
        ConfigError: ``data.calibration`` gives no batch, or ``data.example`` nothing.
    """
    if not has_use_for_example(run.job):
        return None
    calls = run.calls
    return example_inputs(run.job, example=calls.example, calibration=calls.calibration)


def has_use_for_example(job: Job) -> bool:
    """Tell whether a job's recipe asks for the graph of the model, or has a preset that folds.

    Args:
        job: the job; a preset does without example inputs where it has none.
    """
    is_given = job.data.example is not None or job.data.calibration is not None
    if is_given and any(stage.folds_by_preset for stage in job.recipe.stages):
        return True
    return any(
        stage.shrink
        or stage.dependency_groups
        or any(one.fuse_names == AUTO for one in stage.holders)
        or any(one.counts_removal for one in stage.entries)
        for stage in job.recipe.stages
    )


def shrink_what_ended(run: Run) -> None:
    """Shrink the model where stages that end with it have ended.

    Args:
        run: the run, attached.

    Raises:
        SessionError: it cannot be shrunk.
    """
    if run.attached.due_to_shrink:
        run.display.line(f"  {run.attached.shrink().summary}")


def shrink_the_rest(run: Run) -> Run:
    """Shrink for all stages that training ended before their own end came.

    Args:
        run: the run, attached and trained.

    Raises:
        SessionError: it cannot be shrunk.
    """
    if run.attached.to_shrink:
        run.display.line(f"  {run.attached.shrink().summary}")
    return run
