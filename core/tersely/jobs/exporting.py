"""The formats that a job writes besides the model's own weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs

from tersely.document.job import Export, Job
from tersely.errors import ConfigError, Problem
from tersely.exporting.export import Exported, MadeExporter, make_exporter
from tersely.extras import extra
from tersely.jobs.calibrating import example_inputs
from tersely.jobs.finished import finished_job, open_run
from tersely.jobs.output.folders import is_inside
from tersely.jobs.output.lock import only_run
from tersely.jobs.output.record import unreplaced
from tersely.jobs.progress.displays import watch
from tersely.jobs.references import References, job_imports, load_references
from tersely.jobs.run import Run
from tersely.json_value import Json
from tersely.session.session import Session

with extra("cli", purpose="a job"):
    from rich.console import Console

FOLDER = "exports"
"""Where a run keeps what its exporters wrote."""


def export(run: Run) -> Run:
    """Write every format that the job asks for."""
    example = _example(run.job, run.calls)
    written = []
    for one in run.job.export:
        with run.display.working():
            found = export_one(run.attached, one, run.folder / FOLDER, example_inputs=example)
        files = ", ".join(path.name for path in found.paths)
        run.display.line(f"  {one.format}: {files}, {found.bytes:,} bytes")
        written.append(found)
    return attrs.evolve(run, exported=tuple(written))


def check_exports(job: Job) -> None:
    """Refuse formats that cannot be written, before anything expensive begins.

    Args:
        job: the job.

    Raises:
        ConfigError: options are wrong, or two formats write one file.
        MissingExtraError: a library that a format needs is not installed.
        PluginError: nobody provides a format, or its plugin is broken.
    """
    first: dict[str, int] = {}
    problems = []
    for number, one in enumerate(job.export):
        name = file_name(make_exporter(one.format, one.options))
        if name in first:
            found = f"it writes {FOLDER}/{name}, as export[{first[name]}] does"
            advice = f"leave one out, and write it with `tersely export RUN --format {one.format}`"
            problems.append(Problem(f"export[{number}]", found, f"{advice} --output FILE"))
        first.setdefault(name, number)
    if problems:
        raise ConfigError(problems, source=job.source)


def export_one(session: Session, wanted: Export, folder: Path, *, example_inputs: Any) -> Exported:
    """Write one format.

    Args:
        session: the session.
        wanted: the format and its options.
        folder: where its files go.
        example_inputs: what to run the model with, or None.

    Raises:
        ExportError: the format cannot hold a target, or its consumer computes something else.
    """
    made = make_exporter(wanted.format, wanted.options)
    return session.export(
        wanted.format,
        folder / file_name(made),
        example_inputs=example_inputs,
        options=wanted.options,
        dynamic_shapes=wanted.dynamic_shapes,
    )


def export_run(
    folder: Path,
    format: str,
    *,
    output: Path | None = None,
    options: Mapping[str, Json] | None = None,
    dynamic_shapes: Json = None,
    console: Console | None = None,
) -> Exported:
    """Write the model of a finished run in a format.

    Args:
        folder: the output folder of a finished run.
        format: the exporter's name.
        output: the file or a folder for it; by default the run's ``exports``.
        options: the exporter's options.
        dynamic_shapes: ``batch``, or argument -> names of its dimensions, or None.
        console: where to tell what happens; nowhere by default.

    Raises:
        ExportError: the format cannot hold a target, or its consumer computes something else.
        SessionFileError: there is no finished run, or another process writes in its folder.
    """
    made = make_exporter(format, options)
    finished_job(folder)  # before a lock is made next to a folder that is not a run
    place = folder / FOLDER / file_name(made) if output is None else output
    with (
        only_run(folder.absolute()) if is_inside(place, folder) else nullcontext(),
        watch(console or Console(quiet=True), phases=2) as display,
    ):
        with display.phase("open the run"):
            with unreplaced(folder):
                job, session = finished_job(folder), open_run(folder)
            with job_imports(job.directory):
                calls = load_references(job)
                example = _example(job, calls)
        with display.phase("export"), display.working():
            return session.export(
                format,
                place,
                example_inputs=example,
                options=options,
                dynamic_shapes=dynamic_shapes,
            )


def file_name(made: MadeExporter) -> str:
    """Return what the main file of a format is called in a run.

    Args:
        made: the exporter.
    """
    return f"model{made.suffix}" if made.suffix else made.record.descriptor.name


def _example(job: Job, calls: References) -> Any:
    if calls.example is None and calls.calibration is None:
        return None  # some formats need none
    return example_inputs(job, example=calls.example, calibration=calls.calibration)
