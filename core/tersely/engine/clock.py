"""The schedules' clock: which update is due after how many optimizer steps (rule O2)."""

from __future__ import annotations

from fractions import Fraction

import attrs

from tersely.document.recipe import Schedule
from tersely.engine.isolation.foreign import ForeignCall
from tersely.errors import PluginError
from tersely.json_value import Json
from tersely.registry.registry import registry


@attrs.frozen(eq=False)
class Curve:
    """A schedule with the function that shapes it.

    Attributes:
        schedule: when its updates come.
        function: progress in [0, 1] -> share of the configured sparsity, in [0, 1].
        options: the function's keyword arguments.
    """

    schedule: Schedule
    function: Json
    options: dict[str, Json]


def curve_of(schedule: Schedule | None) -> Curve | None:
    """Return a schedule with its function, or None without a schedule.

    Args:
        schedule: the stage's schedule.

    Raises:
        BrokenPluginError: its plugin cannot be imported.
    """
    if schedule is None:
        return None
    return Curve(schedule, registry().schedules[schedule.name], dict(schedule.options))


def update_at(schedule: Schedule, steps: int) -> int:
    """Return which update is in force after ``steps`` optimizer steps, 0 before the first.

    Args:
        schedule: when updates come.
        steps: optimizer steps so far.
    """
    return min(max((steps - schedule.begin) // schedule.every, 0), schedule.times)


def is_due(curve: Curve, steps: int) -> bool:
    """Tell whether an update comes with the optimizer step that was just made.

    Args:
        curve: the schedule.
        steps: optimizer steps so far, that one counted.
    """
    return update_at(curve.schedule, steps) != update_at(curve.schedule, steps - 1)


def progress_at(curve: Curve | None, steps: int) -> Fraction | None:
    """Return the share of a schedule's updates that have been made, or None without a schedule.

    Args:
        curve: the schedule.
        steps: optimizer steps so far.
    """
    if curve is None:
        return None
    return Fraction(update_at(curve.schedule, steps), curve.schedule.times)


def factor_at(curve: Curve | None, steps: int) -> float | Fraction:
    """Return the share of the configured sparsity that is due after ``steps`` steps.

    Args:
        curve: the schedule, or None for all at once.
        steps: optimizer steps so far.

    Returns:
        A Fraction where the schedule computes with one, so that a third of 0.3 is 0.1.

    Raises:
        PluginError: the schedule failed or returned something else than a share.
    """
    progress = progress_at(curve, steps)
    if curve is None or progress is None:
        return 1.0
    name = curve.schedule.name
    with ForeignCall(f"the schedule {name} failed at progress {progress}", plugin=name):
        factor = curve.function(progress, **curve.options)
        share = factor if isinstance(factor, Fraction) else float(factor)
    if not 0 <= share <= 1:
        raise PluginError(
            f"the schedule {name} returned {share} at progress {progress}; expected a share in "
            "[0, 1]",
            plugin=name,
        )
    return share
