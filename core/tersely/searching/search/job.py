"""The search of a job: from its recipe to the cheapest one that is good enough."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs
from torch import nn

from tersely.calibration.observing import evaluating
from tersely.document.job import Export, Job
from tersely.document.load import load_job
from tersely.errors import CalibrationError, ConfigError, PlanError, Problem
from tersely.extras import extra
from tersely.jobs.calibrating import calibration_batches, example_inputs
from tersely.jobs.finished import build_model
from tersely.jobs.generators import seed_generators
from tersely.jobs.output.lock import only_run
from tersely.jobs.progress.displays import watch
from tersely.jobs.references import References, job_imports, load_references
from tersely.planning.resolve import resolve
from tersely.searching.compressing import CalibrationData
from tersely.searching.costs.consumer import Consumer
from tersely.searching.costs.costing import Costing, Objective, need_cost
from tersely.searching.costs.latency_table import LatencyTable
from tersely.searching.output_error import DenseOutputs
from tersely.searching.quality import Quality, quality_by_evaluation, quality_by_output
from tersely.searching.search.best_so_far import BestSoFar
from tersely.searching.search.result import SearchResult
from tersely.searching.search.search import Search
from tersely.searching.sensitivity.job import beside
from tersely.searching.trials.study import TrialStore
from tersely.searching.units import BITS, Unit, units_of
from tersely.storage.digests import digest_of_batches, digest_of_data, digest_of_model
from tersely.storage.durable import make_folder

with extra("cli", purpose="a job"):
    from rich.console import Console

RATIOS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
"""The sparse ratios that a search chooses from by default."""

STUDY = "study.db"


@attrs.frozen(kw_only=True)
class Wanted:
    """The options of a search.

    Attributes:
        max_drop: how much quality may be lost, in percent of the dense model's; without an
            evaluation, the largest relative error of the output, in percent.
        objective: what is minimized.
        trials: the number of settings to try.
        seed: the seed of the sampler.
        ratios: the sparse ratios to choose from.
        bits: the bit widths of weights to choose from.
        metric: the name of the evaluation's number to use; the first by default.
        is_cost: whether lower values are better.
        by_output: whether to use the error of the output even if the job can evaluate.
        costs: ``measured`` for each trial; ``table`` to predict latencies from a table of layers
            and measure only the best ones at the end.
    """

    max_drop: float
    objective: Objective = "macs"
    trials: int = 100
    seed: int = 0
    ratios: Sequence[float] = RATIOS
    bits: Sequence[int] = BITS
    metric: str | None = None
    is_cost: bool = False
    by_output: bool = False
    costs: Literal["measured", "table"] = "measured"


def search_job(
    job: Job | str | os.PathLike[str],
    wanted: Wanted,
    *,
    output: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    console: Console | None = None,
) -> SearchResult:
    """Search for the cheapest recipe that is good enough, and write it with a job that runs it.

    An interrupted search has written the best so far, and continues when it is called again.

    Args:
        job: a job, or the path of its file; it is neither trained nor exported in full.
        wanted: the options.
        output: the folder to write to; by default next to the job's output.
        storage: a URL that Optuna takes, which several processes may share; by default an SQLite
            file in the folder.
        console: where progress is printed; standard output by default.

    Raises:
        ConfigError: the job is wrong, or nothing in it changes the objective.
        PlanError: its recipe does not fit the model, or leaves nothing to choose.
        CalibrationError: there is no way to measure quality.
        SessionFileError: the folder or the storage belongs to another search, or another process
            uses the folder.
        MissingExtraError: optuna is not installed.
    """
    if not isinstance(job, Job):
        job = load_job(job)
    folder = Path(output).absolute() if output is not None else beside(job, "search")
    with job_imports(job.directory), only_run(folder), tempfile.TemporaryDirectory() as scratch:
        calls = load_references(job)
        make_folder(folder)
        storage = storage or f"sqlite:///{folder / STUDY}"
        keep: BestSoFar | None = None
        phases = 4 if wanted.costs == "measured" else 5
        with watch(console or Console(), phases=phases) as display:
            with display.phase("build the model"):
                seed_generators(job.seed)
                model = build_model(job).eval()
            with display.phase("measure the dense model"):
                search = _search(job, calls, model, wanted, storage=storage, scratch=Path(scratch))
                display.line(f"  {search.quality.name} {search.quality.dense:.6g}")
            try:
                with (
                    display.phase("measure each layer alone"),
                    display.gauge(title="measured") as tell,
                ):
                    space = search.table(watching=tell, working=display.working)
                with display.phase("search"), display.gauge(title="trials") as tell:
                    keep = BestSoFar(job, search, wanted.trials, folder, display, tell)
                    tell(len(search.store.tried()), wanted.trials)
                    tried = search.run(
                        space, trials=wanted.trials, watching=keep.look, waiting=keep.wait
                    )
                if wanted.costs == "table":
                    with display.phase("measure the best"):
                        best = keep.write(tried).promising
                        for setting in display.track(best, title="settings measured"):
                            search.measure(setting)
            except KeyboardInterrupt:
                if keep is not None:
                    keep.tell_interrupted()
                display.line("  interrupted; the same command continues here", style="yellow")
                raise
    return keep.write(tried)


def _search(
    job: Job, calls: References, model: nn.Module, wanted: Wanted, *, storage: str, scratch: Path
) -> Search:
    batches = list(calibration_batches(job, calls.calibration))
    example = example_inputs(job, example=calls.example, calibration=calls.calibration)
    plan, _ = resolve(model, job.recipe, example_inputs=example)
    units = units_of(plan, ratios=wanted.ratios, bits=wanted.bits)
    if not units:
        raise PlanError(
            "the recipe prunes and quantizes nothing of this model, so there is nothing to "
            "search for"
        )
    export = need_cost(wanted.objective, plan, job.export)
    _need_usable(wanted)
    data = CalibrationData(batches=batches, mask=job.data.mask)
    seed_generators(job.seed)
    quality = _quality(calls, model, data, wanted)
    store = TrialStore(
        storage,
        names=[unit.key for unit in units],
        levels=[len(unit.levels) for unit in units],
        subject={
            "model": digest_of_model(model),
            "recipe": digest_of_data(job.recipe.document),
            "data": digest_of_batches(batches),
            **_digests_of(job, wanted, units, export),
        },
        seed=wanted.seed,
    )
    consumer = None
    if export is not None:
        consumer = Consumer(export=export, dense=model, example_inputs=example, folder=scratch)
    costing = Costing(
        objective=wanted.objective, dense=model, example_inputs=example, consumer=consumer
    )
    is_looked_up = wanted.costs == "table"
    return Search(
        model=model,
        plan=plan,
        units=units,
        data=data,
        quality=quality,
        costing=costing,
        max_drop=wanted.max_drop,
        store=store,
        reseed=lambda: seed_generators(job.seed),
        latencies=LatencyTable.of(costing, plan, units, store) if is_looked_up else None,
    )


def _need_usable(wanted: Wanted) -> None:
    problems = []
    if wanted.costs == "table" and wanted.objective != "latency":
        message = f"a table holds latencies of layers, and the objective is {wanted.objective}"
        hint = "leave --costs out, or use --objective latency"
        problems.append(Problem("--costs", message, hint))
    if math.isnan(wanted.max_drop):
        message, hint = "found nan, expected a percentage", "write a number such as 1"
        problems.append(Problem("--max-drop", message, hint))
    if problems:
        raise ConfigError(problems, source="the command line")


def _digests_of(
    job: Job, wanted: Wanted, units: Sequence[Unit], export: Export | None
) -> dict[str, str]:
    """Return the digests of what is searched for and how, apart from model, recipe and data."""
    return {
        "evaluation": digest_of_data(
            [job.data.evaluate, wanted.metric, wanted.is_cost, wanted.by_output]
        ),
        "levels": digest_of_data([[unit.key, *map(str, unit.levels)] for unit in units]),
        "objective": digest_of_data(
            [wanted.objective, wanted.costs, export and attrs.asdict(export)]
        ),
        "max-drop": digest_of_data(wanted.max_drop),
        "seed": digest_of_data([wanted.seed, job.seed]),
    }


def _quality(calls: References, model: nn.Module, data: CalibrationData, wanted: Wanted) -> Quality:
    with evaluating(model):
        if calls.evaluate is not None and not wanted.by_output:
            return quality_by_evaluation(
                model, calls.evaluate, metric=wanted.metric, is_cost=wanted.is_cost
            )
        if not data.batches:
            raise CalibrationError(
                "a search measures quality by the job's data.evaluate, or by the error of outputs "
                "on data.calibration; the job has neither",
                path="data",
            )
        return quality_by_output(DenseOutputs.of(model, tuple(data.batches), mask=data.mask))
