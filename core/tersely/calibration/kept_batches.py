"""Decides whether calibration batches will be needed again and must be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tersely.document.recipe import Stage
from tersely.engine.context import Context
from tersely.engine.protocol import Engine
from tersely.errors import SessionError


def stages_that_look(engines: Sequence[Engine[Any]], steps: int) -> list[Stage]:
    """Return the stages that will look at calibration batches from now on.

    A stage looks when it begins, in every `compress` where its algorithm goes block by block or
    moves ranges into weights, and once more where an engine before its own has yet to change the
    model.

    Args:
        engines: the session's engines, in their order.
        steps: optimizer steps so far.
    """
    found = []
    is_settled = True
    for engine in engines:
        found += [
            run.stage
            for run in engine.runs
            if run.is_calibrated
            and (not run.stage.has_begun(steps) or run.is_looking_again or not is_settled)
        ]
        is_settled = is_settled and (engine.is_compressed or not engine.runs)
    return found


def need_kept_batches(engines: Sequence[Engine[Any]], context: Context, call: str) -> None:
    """Refuse to train towards a stage that will have no batches to look at.

    Args:
        engines: the session's engines.
        context: what they share.
        call: the method that was called.

    Raises:
        SessionError: a stage that has not begun needs calibration, and there are no batches.
    """
    if context.batches is not None:
        return
    for engine in engines:
        for run in engine.runs:
            if run.stage.has_begun(context.steps) or not run.is_calibrated:
                continue
            # Ranges that follow training need no batches, and begin with them where there are some.
            if run.is_optional_calibration and not context.has_kept_batches:
                continue
            stage = run.stage
            raise SessionError(
                f"{call}() found no calibration batches, and {stage.path} ({stage.algorithm}) "
                f"looks at some when it begins, at step {stage.begin}; call "
                "session.calibrate(batches) first, also in a session that was loaded, since "
                "batches are not saved with it",
                path=stage.path,
                algorithm=stage.algorithm,
            )


def release_batches(engines: Sequence[Engine[Any]], context: Context) -> None:
    """Forget calibration batches that are no longer needed.

    Args:
        engines: the session's engines.
        context: what they share; its batches are written.
    """
    if not stages_that_look(engines, context.steps):
        context.batches = None
