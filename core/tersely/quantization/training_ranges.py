"""Ranges that follow the values of training: what an optimizer step ends, starts and freezes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from tersely.engine.targets.binding import BoundTarget
from tersely.errors import CompressionWarning
from tersely.instrument.scales.moving_range import check_followed, end_step, pop_strange
from tersely.quantization.run import QuantizationRun
from tersely.quantization.steps import put_steps

_SHOWN = 10


def end_followed_step(runs: Sequence[QuantizationRun]) -> list[str]:
    """Update ranges with what one optimizer step has shown.

    Args:
        runs: the stages that have begun.

    Returns:
        Names of the targets that saw values which are not finite.

    Raises:
        CalibrationError: a range cannot be used.
    """
    strange: list[str] = []
    for run in runs:
        for bound in (*run.parameters, *run.activations) if run.follows_training() else ():
            check_followed(bound.module, bound.plan.target, bound.plan.name)
            strange += [bound.plan.name] * pop_strange(bound.module, bound.plan.target)
            for module, attribute in bound.owners:
                end_step(module, attribute)
    return strange


def start_or_freeze(
    runs: Sequence[QuantizationRun],
    bound_targets: Sequence[BoundTarget],
    *,
    before: int,
    steps: int,
) -> None:
    """Let quantization start, or ranges freeze, where the step for it has come.

    Args:
        runs: all stages.
        bound_targets: all quantization targets of the session.
        before: optimizer steps before this one.
        steps: optimizer steps, this one counted.
    """
    for run in runs:
        follower = run.follows_training()
        if follower is None:
            continue
        changes = (follower.start_step, follower.freeze_step)
        begin = run.stage.begin
        if any(one is not None and before < begin + one <= steps for one in changes):
            put_steps(run, bound_targets, steps=steps)


def warn_of_strange(names: Sequence[str]) -> None:
    """Warn of targets whose ranges left values out.

    Args:
        names: their full names.
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    warnings.warn(
        f"values that are not finite reached {', '.join(names[:_SHOWN])}{more} in training; their "
        "ranges leave such values out, and this warning is shown once: lower the learning rate or "
        "the loss scale if it continues",
        CompressionWarning,
        stacklevel=4,
    )
