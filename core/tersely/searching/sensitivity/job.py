"""The sensitivity analysis of a job's model, with a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from tersely.document.job import Job
from tersely.document.load import load_job
from tersely.extras import extra
from tersely.jobs.calibrating import calibration_batches, example_inputs
from tersely.jobs.finished import build_model
from tersely.jobs.generators import seed_generators
from tersely.jobs.output.lock import only_run
from tersely.jobs.progress.displays import watch
from tersely.jobs.references import References, job_imports, load_references
from tersely.searching.sensitivity.analysis import sensitivity
from tersely.searching.sensitivity.result import Sensitivity
from tersely.searching.units import BITS, RATIOS
from tersely.storage.durable import make_folder

with extra("cli", purpose="a job"):
    from rich.console import Console

MEASUREMENTS = "measurements.jsonl"
FOUND = "sensitivity.json"
PLOT = "sensitivity.svg"


@attrs.frozen(kw_only=True)
class Asked:
    """The options of a sensitivity analysis.

    Attributes:
        ratios: the sparse ratios to try.
        bits: the bit widths of weights to try.
        by_output: whether to use the error of the output even if the job can evaluate.
        metric: the name of the evaluation's number to use; the first by default.
        is_cost: whether lower values are better.
    """

    ratios: Sequence[float] = RATIOS
    bits: Sequence[int] = BITS
    by_output: bool = False
    metric: str | None = None
    is_cost: bool = False


def sensitivity_of_job(
    job: Job | str | os.PathLike[str],
    *,
    asked: Asked | None = None,
    output: str | os.PathLike[str] | None = None,
    has_plot: bool = True,
    console: Console | None = None,
) -> Sensitivity:
    """Measure what each layer of a job's model loses when it alone is compressed, and write it.

    An interrupted analysis continues when it is called again.

    Args:
        job: a job, or the path of its file; it is neither trained nor exported.
        asked: the options.
        output: the folder to write to; by default next to the job's output.
        has_plot: whether to draw a plot, too.
        console: where progress is printed; standard output by default.

    Raises:
        ConfigError: the job is wrong.
        PlanError: its recipe does not fit the model, or leaves nothing to vary.
        CalibrationError: there is no way to measure quality.
        SessionFileError: the folder holds measurements of something else, or another process is
            using it.
        MissingExtraError: a plot is requested and matplotlib is not installed.
    """
    if not isinstance(job, Job):
        job = load_job(job)
    asked = asked or Asked()
    if has_plot:
        from tersely.searching.sensitivity import plot  # noqa: F401  # before hours are spent
    folder = Path(output).absolute() if output is not None else beside(job, "sensitivity")
    with job_imports(job.directory), only_run(folder):
        calls = load_references(job)
        make_folder(folder)
        with watch(console or Console(), phases=2) as display:
            with display.phase("build the model"):
                seed_generators(job.seed)
                model = build_model(job)
            with display.phase("measure each layer"), display.gauge(title="measured") as tell:
                found = sensitivity(
                    model,
                    job.recipe,
                    data=list(calibration_batches(job, calls.calibration)),
                    mask=job.data.mask,
                    evaluate=None if asked.by_output else calls.evaluate,
                    metric=asked.metric,
                    is_cost=asked.is_cost,
                    ratios=asked.ratios,
                    bits=asked.bits,
                    example_inputs=example_where_there_is_one(job, calls),
                    path=folder / MEASUREMENTS,
                    watching=tell,
                )
    found.to_json(folder / FOUND)
    if has_plot:
        found.plot(folder / PLOT)
    return found


def beside(job: Job, name: str) -> Path:
    """Return the folder next to a job's output for another result of the job.

    Args:
        job: the job.
        name: the suffix of the folder's name.
    """
    return job.output.with_name(f"{job.output.name}-{name}")


def example_where_there_is_one(job: Job, calls: References) -> Any:
    """Return the example inputs of a job's model, or None if it states none.

    Args:
        job: the job.
        calls: its loaded references.
    """
    if calls.example is None and calls.calibration is None:
        return None
    return example_inputs(job, example=calls.example, calibration=calls.calibration)
