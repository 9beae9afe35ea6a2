"""Passes of the user's batches, in which every stage at work observes what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from tersely.calibration.observing import observe, run_batches
from tersely.calibration.statistic import collect
from tersely.calibration.watching import collect_watches, watch_modules
from tersely.engine.batches import Batches, Forward
from tersely.quantization.ranges import join, observing

if TYPE_CHECKING:
    from tersely.pruning.engine import Pruning
    from tersely.pruning.run import PruningRun
    from tersely.quantization.engine import Quantization


def calibrate(
    model: nn.Module,
    pruning: Pruning,
    quantization: Quantization,
    batches: Iterable[Any],
    forward: Forward | None,
) -> None:
    """Run batches and let algorithms observe; after an error what was observed before is kept.

    Both keep the batches where they are needed again: to compress block by block, because masks
    that are still to come change what inputs and outputs are quantized, or for stages that begin
    later.

    Args:
        model: the session's model.
        pruning: its pruning.
        quantization: its quantization.
        batches: what to run; read once.
        forward: called as forward(model, batch), or None for the default.
    """
    statistics = pruning.new_statistics(pruning.begun)
    seen = quantization.seers(quantization.begun)
    pruned = pruning.watches(pruning.begun)
    quantized = quantization.watches(quantization.begun)
    watches = [watch for _, some in (*pruned, *quantized) for watch in some]
    is_late = any(run.stage.begin and run.is_calibrated for run in pruning.runs) or any(
        run.stage.begin and run.is_calibrated for run in quantization.runs
    )
    is_kept = (
        pruning.is_keeping_batches
        or quantization.is_keeping_batches
        or is_late
        or bool(pruning.runs and (seen or quantized) and not pruning.is_compressed)
    )
    kept = tuple(batches) if is_kept else None
    count = len(kept or ())
    if statistics or seen or watches or kept is None:
        with (
            observe(statistics),
            observing(seen, quantization.modules()),
            watch_modules(watches),
        ):
            count = run_batches(model, batches if kept is None else kept, forward)
    collect(list(statistics.values()), count)
    join(seen, count)
    collect_watches(watches)
    pruning.statistics = statistics
    for pruning_run, some in pruned:
        pruning_run.observed = {watch.handle: watch.sums for watch in some}
    for quantization_run, some in quantized:
        quantization_run.observed = {watch.handle: watch.sums for watch in some}
    quantization.seen = {one.handle: one for one in seen}
    quantization.is_outdated = False
    quantization.has_kept_batches = kept is not None
    pruning.batches = quantization.batches = None if kept is None else Batches(kept, forward)


def observe_again(pruning: Pruning, runs: Sequence[PruningRun], batches: Batches) -> None:
    """Let some pruning stages observe the model as it is now.

    Args:
        pruning: the session's pruning.
        runs: the stages.
        batches: the calibration batches.
    """
    statistics = pruning.new_statistics(runs)
    pruned = pruning.watches(runs)
    watches = [watch for _, some in pruned for watch in some]
    if not statistics and not watches:
        return
    with observe(statistics), watch_modules(watches):
        count = run_batches(pruning.model, batches.batches, batches.forward)
    collect(list(statistics.values()), count)
    collect_watches(watches)
    pruning.statistics.update(statistics)
    for run, some in pruned:
        run.observed = {watch.handle: watch.sums for watch in some}
