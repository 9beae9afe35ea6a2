"""Which phases a job goes through, and whether it compresses before it trains or after."""

from __future__ import annotations

from pathlib import Path

from tersely.contracts.pruner import Grows
from tersely.contracts.regrowing import ObservesDenseGradients
from tersely.document.job import Job
from tersely.document.recipe import Recipe, Stage
from tersely.document.rules.training import NEEDS_TRAINING
from tersely.engine.clock import curve_of, factor_at
from tersely.jobs import phases
from tersely.jobs.exporting import export
from tersely.jobs.measuring.benchmarking import benchmark_all
from tersely.jobs.measuring.layers import has_inputs, look_at_layers
from tersely.jobs.output.record import RunRecord
from tersely.jobs.run import Phase
from tersely.jobs.shrinking import shrink_the_rest
from tersely.planning.stages.algorithms import is_declared, pruner_needs
from tersely.registry.registry import registry


def phases_of(job: Job, record: RunRecord, folder: Path) -> tuple[Phase, ...]:
    """Return the phases that are left of a job, in order.

    Args:
        job: the job.
        record: what is finished of its run.
        folder: where the run writes.
    """
    done = record.done
    is_measured = job.data.evaluate is not None
    has_checkpoint = phases.newest_checkpoint(folder, record) is not None
    wanted = (
        (Phase("build the model", phases.build_model), True),
        (Phase("evaluate the dense model", phases.measure("before"), "before"), is_measured),
        (Phase("plan", phases.resolve_plan), True),
        (Phase("restore the last checkpoint", phases.restore), has_checkpoint),
        (Phase("attach", phases.attach_plan), not has_checkpoint),
        (
            Phase("calibrate", phases.calibrate),
            job.data.calibration is not None and not has_checkpoint,
        ),
        *_work(job, is_measured=is_measured),
        (Phase("shrink", shrink_the_rest), any(one.shrink for one in job.recipe.stages)),
        (Phase("evaluate the result", phases.measure("after"), "after"), is_measured),
        (Phase("save the session", phases.save), True),
        (Phase("export", export), bool(job.export)),
        (Phase("compare the layers", look_at_layers), has_inputs(job)),
        (Phase("finalize", phases.finalize), True),
        (Phase("benchmark", benchmark_all), job.benchmark is not None),
        (Phase("write the report", phases.write_report), True),
    )
    return tuple(
        phase for phase, is_wanted in wanted if is_wanted and phase.lasting not in (*done,)
    )


def _work(job: Job, *, is_measured: bool) -> tuple[tuple[Phase, bool], ...]:
    compress = Phase("compress", phases.compress, "compress")
    train = Phase("train", phases.train, "train")
    if _is_compressed_last(job.recipe):
        measure = phases.measure_uncompressed("trained")
        return (
            (train, True),
            (Phase("evaluate the trained model", measure, "trained"), is_measured),
            (compress, True),
        )
    measure = phases.measure("compressed")
    is_trained = job.train is not None or job.loop is not None
    return (
        (compress, True),
        (
            Phase("evaluate the compressed model", measure, "compressed"),
            is_measured and is_trained,
        ),
        (train, is_trained),
    )


def _is_compressed_last(recipe: Recipe) -> bool:
    """Tell whether a job has to train before it can compress.

    That is so when an algorithm learns or observes while the user trains, and wants to mask
    something at once. One that grows from zero, by its own curve or a schedule, has its masks
    in force while it trains, and so has one that regrows what it masked.
    """
    return any(_is_late(stage) for stage in recipe.stages if stage.method == "pruning")


def _is_late(stage: Stage) -> bool:
    pruners = registry().pruners
    if pruner_needs(stage.algorithm) not in NEEDS_TRAINING:
        return False
    implementation, info = pruners[stage.algorithm], pruners.info(stage.algorithm)
    if any(is_declared(one, implementation, info) for one in (Grows, ObservesDenseGradients)):
        return False
    return not stage.begin and factor_at(curve_of(stage.schedule), 0) > 0
