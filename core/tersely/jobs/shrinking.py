"""What a job shrinks with, and the shrinking that no training step does by itself."""

from __future__ import annotations

from typing import Any

from tersely.errors import ConfigError, Problem
from tersely.jobs.calibrating import calibration_batches
from tersely.jobs.generators import seed_generators
from tersely.jobs.run import Run


def example_of(run: Run) -> Any:
    """Return example inputs of a job's model, or None where its recipe asks for none.

    Args:
        run: the run.

    Raises:
        ConfigError: ``data.calibration`` gives no batch, or ``data.example`` nothing.
    """
    if all(stage.shrink is None for stage in run.job.recipe.stages):
        return None
    seed_generators(run.job.seed)
    if run.calls.example is not None:
        found, path = run.calls.example(), "data.example"
    else:
        found, path = next(iter(calibration_batches(run)), None), "data.calibration"
    if found is None:
        message = "gave nothing, expected example inputs of the model"
        hint = "return a tensor, a list of arguments or a mapping of keyword arguments"
        raise ConfigError([Problem(path, message, hint)], source=run.job.source)
    return found


def shrink_what_ended(run: Run) -> None:
    """Shrink the model where stages that end with it have ended.

    Args:
        run: the run, attached.

    Raises:
        SessionError: it cannot be shrunk.
    """
    if run.attached.due_to_shrink:
        run.voice.line(f"  {run.attached.shrink().summary}")


def shrink_the_rest(run: Run) -> Run:
    """Shrink for all stages that training ended before their own end came.

    Args:
        run: the run, attached and trained.

    Raises:
        SessionError: it cannot be shrunk.
    """
    if run.attached.to_shrink:
        run.voice.line(f"  {run.attached.shrink().summary}")
    return run
