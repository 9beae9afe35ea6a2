"""What a job shrinks with, and the shrinking that no training step does by itself."""

from __future__ import annotations

from typing import Any

from tersely.document.recipe import AUTO, Entry, Recipe
from tersely.document.rules.shrinking import COUNTED
from tersely.jobs.calibrating import example_inputs
from tersely.jobs.run import Run


def example_of(run: Run) -> Any:
    """Return example inputs of a job's model, or None where its recipe asks for none.

    Args:
        run: the run.

    Raises:
        ConfigError: ``data.calibration`` gives no batch, or ``data.example`` nothing.
    """
    if not needs_example(run.job.recipe):
        return None
    calls = run.calls
    return example_inputs(run.job, example=calls.example, calibration=calls.calibration)


def needs_example(recipe: Recipe) -> bool:
    """Tell whether a recipe asks for the graph of the model.

    Args:
        recipe: the recipe.
    """
    return any(
        stage.shrink
        or stage.dependency_groups
        or any(one.fuse_names == AUTO for one in stage.holders)
        or any(_counts(one) for one in stage.entries)
        for stage in recipe.stages
    )


def _counts(entry: Entry) -> bool:
    settings = (entry.shortcuts, *entry.target_settings.values())
    return any(setting.get("budget") in COUNTED for setting in settings)


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
