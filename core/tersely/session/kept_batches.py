"""Calibration batches that a restored session works through again; they are not saved with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tersely.engine.batches import Batches
from tersely.session.session import Session


def needs_batches(session: Session) -> bool:
    """Tell whether something is still to be compressed that may ask for calibration batches.

    Args:
        session: a session that was restored.
    """
    pruning, quantization = session._pruning, session._quantization
    if session.waiting:
        return True
    growing = pruning.growing(session.steps)
    return bool(quantization.runs and not quantization.is_compressed) or any(
        run.is_sequential and (run.number in growing or not pruning.is_compressed)
        for run in pruning.runs
    )


def give_batches(session: Session, batches: Iterable[Any]) -> None:
    """Keep batches as `Session.calibrate` does, and leave what it has observed as it was restored.

    Args:
        session: a session that was restored.
        batches: the batches of its calibration; read once.
    """
    kept = Batches(tuple(batches), None)
    session._pruning.batches = session._quantization.batches = kept
