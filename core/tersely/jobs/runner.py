"""Run a job from its file to its report, and resume one that was interrupted."""

from __future__ import annotations

import os
import shlex
import time
from functools import partial
from pathlib import Path

import attrs

from tersely.document.job import Job
from tersely.document.load import load_job
from tersely.errors import SessionFileError
from tersely.extras import extra, need_extra
from tersely.jobs.exporting import check_exports
from tersely.jobs.measuring.benchmarking import check_sizes
from tersely.jobs.order_of_phases import phases_of
from tersely.jobs.output.folders import (
    check_output,
    partial_folder,
    publish,
    recover,
    start_over,
    written_files,
)
from tersely.jobs.output.lock import only_run
from tersely.jobs.output.record import (
    RunRecord,
    changed_parts,
    new_record,
    read_record,
    write_record,
)
from tersely.jobs.progress.displays import watch
from tersely.jobs.progress.observers import job_observers
from tersely.jobs.references import References, job_imports, load_references
from tersely.jobs.run import Phase, Run, remember
from tersely.jobs.training.optimizing import check_optimizer
from tersely.log import logger
from tersely.planning.plan import Plan
from tersely.registry.registry import registry
from tersely.reporting.printing.terminal import show_report
from tersely.reporting.report import Report, read_report

with extra("cli", purpose="a job"):
    from rich.console import Console


def run_job(
    job: Job | str | os.PathLike[str],
    *,
    resume: bool = False,
    output: str | os.PathLike[str] | None = None,
    plan: Plan | None = None,
    console: Console | None = None,
) -> Report:
    """Run a whole job and write its output folder, which appears when everything is finished.

    The job, its recipe and all its references are checked before anything expensive begins. Until
    the end everything is written to ``<output>.partial``; the result of an earlier run stays.

    Args:
        job: a job, or the path of its file.
        resume: continue after the last phase that an interrupted run finished.
        output: another output folder than the job's.
        plan: the plan that was reviewed: where the job comes to another one, nothing is done.
        console: where to tell what happens; standard output by default.

    Returns:
        The report, as it was written.

    Raises:
        ConfigError: the job is wrong; every problem at once.
        MissingExtraError: a library is not installed that its report or an export needs.
        PlanError: the recipe does not fit the model, or ``plan`` is not what it comes to.
        SessionFileError: the interrupted run is damaged, or was started with another job, or
            another process runs this one.
    """
    if not isinstance(job, Job):
        job = load_job(job)
    if output is not None:
        job = attrs.evolve(job, output=Path(output).absolute())
    console = console or Console()
    check_output(job.output)
    need_extra("report", purpose="a report's page")  # which is written last
    with job_imports(job.directory):
        calls = load_references(job)
        check_optimizer(job)
        check_exports(job)
        check_sizes(job)
        with only_run(job.output):
            check_output(job.output)  # again: another run may have written since
            recover(job.output)
            record, finished = _starting_point(job, resume=resume, console=console)
            if finished is not None:
                return finished
            again = _command(job, output)
            return _carry_out(job, record, calls=calls, reviewed=plan, console=console, again=again)


def _starting_point(job: Job, *, resume: bool, console: Console) -> tuple[RunRecord, Report | None]:
    partial = partial_folder(job.output)
    fresh = new_record(job)
    interrupted = read_record(partial)
    if not resume:
        if interrupted is not None and interrupted.finished:
            _say(console, f"starting over; the interrupted run in {partial} is discarded")
        start_over(job.output, fresh)
        return fresh, None
    if interrupted is not None:
        _check_same(interrupted, job, partial)
        if interrupted.finished:
            _say(console, f"continuing after: {', '.join(interrupted.finished)}")
        # What is known of the job is not taken from a file.
        progress = attrs.evolve(
            interrupted, directory=fresh.directory, job=fresh.job, parts=fresh.parts
        )
        return progress, None
    finished = read_record(job.output)
    if finished is not None:
        _check_same(finished, job, job.output)
        _say(console, f"nothing to resume: the run in {job.output} is finished")
        report = read_report(job.output / "report.json")
        show_report(report, console)
        return finished, report
    _say(console, "nothing to resume: starting from the beginning")
    start_over(job.output, fresh)
    return fresh, None


def _check_same(record: RunRecord, job: Job, folder: Path) -> None:
    changed = changed_parts(record, job)
    if changed:
        raise SessionFileError(
            f"{folder} holds a run of another version of the job: {', '.join(changed)} "
            "changed; run it without --resume, or undo the change",
            path=folder,
        )


def _carry_out(
    job: Job,
    record: RunRecord,
    *,
    calls: References,
    reviewed: Plan | None,
    console: Console,
    again: str,
) -> Report:
    folder = partial_folder(job.output)
    steps = phases_of(job, record, folder)
    started = time.monotonic()
    log = logger(__name__)
    log.info("job_started", job=job.source, output=str(job.output), phases=len(steps))
    with (
        watch(console, phases=len(steps)) as display,
        job_observers(job, calls, say=partial(display.line, style="yellow")) as observers,
    ):
        run = Run(
            job=job,
            calls=calls,
            folder=folder,
            display=display,
            record=record,
            reviewed=reviewed,
            observers=observers,
        )
        for phase in steps:
            begun = time.monotonic()
            log.info("phase_started", phase=phase.title)
            try:
                with display.phase(phase.title):
                    run = remember(phase.act(run), phase)
            except BaseException as error:
                log.info("phase_failed", phase=phase.title, error=repr(error))
                # A loop that fails has kept epochs of which this run does not know yet.
                known = read_record(folder) or run.record
                display.line(_epitaph(job, phase, known, again), style="bold yellow")
                raise
            log.info("phase_finished", phase=phase.title, seconds=_seconds_since(begun))
        # Before the observers are closed, which may log what was written.
        report = _publish(run)
    log.info("job_finished", output=str(job.output), seconds=_seconds_since(started))
    show_report(report, console)
    _say(console, f"report: {job.output / 'report.html'}")
    return report


def _publish(run: Run) -> Report:
    """Put what was written in the place of the output, whole, and return the report."""
    if run.report is None:
        raise RuntimeError("a job ended without a report")
    promised = written_files(run.folder)
    write_record(run.folder, attrs.evolve(run.record, state="finished", files=promised))
    publish(run.job.output)
    return run.report


def _seconds_since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)


def _command(job: Job, output: str | os.PathLike[str] | None) -> str:
    """Return the command that resumes an interrupted run of a job."""
    if not job.source:
        return "run_job(..., resume=True)"
    files = (one.file for one in registry().plugins() if one.file is not None)
    plugins = "".join(f" --plugin {shlex.quote(file)}" for file in files)
    there = "" if output is None else f" --output {shlex.quote(os.fspath(output))}"
    return f"tersely run {shlex.quote(job.source)}{plugins}{there} --resume"


def _epitaph(job: Job, phase: Phase, record: RunRecord, again: str) -> str:
    stopped = f"stopped while trying to {phase.title}; {partial_folder(job.output)} is kept"
    if not record.finished:
        return f"{stopped}, but no phase has finished, so there is nothing to resume"
    return f"{stopped}; finished: {', '.join(record.finished)}; continue with: {again}"


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
