"""Calibration once more, where masks or weights have changed what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tersely.calibration.observing import run_batches
from tersely.calibration.watching import collect_watches, watch_modules
from tersely.engine.batches import Batches
from tersely.errors import SessionError
from tersely.quantization.ranges import join, observing

if TYPE_CHECKING:
    from tersely.quantization.engine import Quantization
    from tersely.quantization.run import QuantizationRun


def watch_again(
    quantization: Quantization, runs: Sequence[QuantizationRun], batches: Batches
) -> None:
    """Let algorithms observe modules once more.

    Args:
        quantization: the session's quantization.
        runs: the stages that observe.
        batches: the calibration batches.
    """
    watched = quantization.watches(runs)
    watches = [watch for _, some in watched for watch in some]
    if not watches:
        return
    with observing((), quantization.modules()), watch_modules(watches):
        run_batches(quantization.model, batches.batches, batches.forward)
    collect_watches(watches)
    for run, some in watched:
        run.observed = {watch.handle: watch.sums for watch in some}


def see_again(quantization: Quantization, runs: Sequence[QuantizationRun]) -> None:
    """Observe inputs and outputs once more.

    Args:
        quantization: the session's quantization.
        runs: the stages whose inputs and outputs are observed.

    Raises:
        SessionError: the batches were not kept, because the session was loaded.
    """
    batches = quantization.batches
    if batches is None:
        raise SessionError(
            f"{next(iter(quantization.seen)).plan.name} was calibrated before the session was "
            f"loaded, and weights or masks have changed since; call session.calibrate(batches) "
            f"again"
        )
    seen = quantization.seers(runs)
    with observing(seen, quantization.modules()):
        count = run_batches(quantization.model, batches.batches, batches.forward)
    join(seen, count)
    quantization.seen.update({one.handle: one for one in seen})
