"""The formats that a job writes beside the model's own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from tersely.document.job import Export
from tersely.exporting.export import Exported, MadeExporter, make_exporter
from tersely.jobs.calibrating import example_inputs
from tersely.jobs.run import Run
from tersely.session.session import Session

FOLDER = "exports"
"""Where a run keeps what its exporters wrote."""


def export(run: Run) -> Run:
    """Write every format that the job asks for."""
    example = _example(run)
    written = []
    for one in run.job.export:
        found = export_one(run.attached, one, run.folder / FOLDER, example_inputs=example)
        files = ", ".join(path.name for path in found.paths)
        run.voice.line(f"  {one.format}: {files}, {found.bytes:,} bytes")
        written.append(found)
    return attrs.evolve(run, exported=tuple(written))


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


def file_name(made: MadeExporter) -> str:
    """Return what the main file of a format is called in a run.

    Args:
        made: the exporter.
    """
    return f"model{made.suffix}" if made.suffix else made.record.descriptor.name


def _example(run: Run) -> Any:
    calls = run.calls
    if calls.example is None and calls.calibration is None:
        return None  # some formats need none
    return example_inputs(run.job, example=calls.example, calibration=calls.calibration)
