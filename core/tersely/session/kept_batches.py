"""Calibration batches that a restored session works through again; they are not saved with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tersely.calibration.keeping import stages_that_look
from tersely.engine.batches import Batches
from tersely.engine.padding import PaddingMask
from tersely.session.session import Session


def needs_batches(session: Session) -> bool:
    """Tell whether something is still to be compressed that may ask for calibration batches.

    Args:
        session: a session that was restored.
    """
    return bool(stages_that_look(session._engines.all, session.steps))


def give_batches(
    session: Session, batches: Iterable[Any], *, mask: PaddingMask | None = None
) -> None:
    """Keep batches as `Session.calibrate` does, and leave what it has observed as it was restored.

    Args:
        session: a session that was restored.
        batches: the batches of its calibration; read once.
        mask: which positions of a batch are data; see `Session.calibrate`.
    """
    session._context.batches = Batches(tuple(batches), None, mask)
