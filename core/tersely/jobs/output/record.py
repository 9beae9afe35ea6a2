"""What a run has finished so far: the small file from which it resumes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import attrs

from tersely.document.job import Job
from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.registry.registry import registry
from tersely.storage.durable import write_whole
from tersely.storage.json_file import check_digest, check_shape, read_json_file, with_digest

FORMAT = "tersely-run"
VERSION = 1
NAME = "run.json"

State = Literal["running", "finished"]

_NUMBER: Json = {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}
_SHAPE: Json = {
    "required": ["directory", "job", "parts", "state", "done", "metrics", "epochs", "files"],
    "properties": {
        "directory": {"type": "string"},
        "job": {"type": "object", "required": ["model", "recipe", "output"]},
        "parts": {"type": "object", "additionalProperties": {"type": "string"}},
        "state": {"enum": ["running", "finished"]},
        "done": {"type": "array", "items": {"type": "string"}},
        "metrics": {"type": "object", "additionalProperties": _NUMBER},
        "epochs": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0}]},
        "files": {
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": 0},
        },
    },
}


@attrs.frozen(kw_only=True)
class RunRecord:
    """How far a run is.

    Attributes:
        directory: the job's folder, seen from its output; absolute where there is no way between.
        job: the job as plain data, its recipe in place of the recipe's path.
        parts: part of the job (``model``, ``recipe``, ``train``...) -> digest of what it said.
        state: running, also when it was interrupted; or finished.
        done: phases with lasting results that are finished, in order.
        metrics: every measurement so far.
        epochs: whole epochs of the built-in loop, while it is under way and has a checkpoint.
        files: the files of a finished run, relative to its folder -> bytes.
    """

    directory: str
    job: Mapping[str, Json]
    parts: Mapping[str, str]
    state: State = "running"
    done: tuple[str, ...] = ()
    metrics: Mapping[str, float] = attrs.field(factory=dict)
    epochs: int | None = None
    files: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def finished(self) -> tuple[str, ...]:
        """What need not be done again, in words."""
        return (*self.done, f"epoch {self.epochs}") if self.epochs else self.done

    def with_done(self, phase: str, metrics: Mapping[str, float]) -> RunRecord:
        """Return the record after one more phase.

        Args:
            phase: the phase's name.
            metrics: every measurement so far.
        """
        return attrs.evolve(self, done=(*self.done, phase), metrics=dict(metrics))


def new_record(job: Job) -> RunRecord:
    """Return the record of a run that has finished nothing.

    Args:
        job: a validated job.
    """
    try:
        directory = os.path.relpath(job.directory, job.output)
    except ValueError:  # another drive
        directory = str(job.directory)
    return RunRecord(
        directory=directory,
        job=whole_document(job),
        parts=digest_parts(job),
    )


def whole_document(job: Job) -> dict[str, Json]:
    """Return a job as plain data, its recipe in place of the recipe's path.

    Args:
        job: a validated job.
    """
    return {**job.document, "recipe": job.recipe.document}


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a record, whole or not at all.

    Args:
        folder: the run's folder.
        record: what to write.

    Raises:
        OSError: it cannot be written.
    """
    data = attrs.asdict(record)
    data["metrics"] = {
        name: value if math.isfinite(value) else repr(value)
        for name, value in record.metrics.items()
    }
    document = with_digest({"format": FORMAT, "version": VERSION, **data})
    write_whole(folder / NAME, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_record(folder: Path) -> RunRecord | None:
    """Read the record of a run, or return None for a folder that holds no run.

    Args:
        folder: the run's folder, which may not exist.

    Raises:
        SessionFileError: the record is damaged or of another version.
    """
    place = folder / NAME
    advice = f"remove {folder} and run the job again"
    try:
        data = read_json_file(place, advice=advice)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return None
    if data.get("version") != VERSION:
        raise SessionFileError(
            f"{place} has run format {data.get('version')!r}, this tersely reads {VERSION}; remove "
            f"{folder} or install the version that wrote it",
            path=place,
        )
    check_shape(data, _SHAPE, place=place, advice=advice)
    check_digest(data, place=place, advice=advice)
    return RunRecord(
        directory=data["directory"],
        job=data["job"],
        parts=data["parts"],
        state=data["state"],
        done=tuple(data["done"]),
        metrics={name: float(value) for name, value in data["metrics"].items()},
        epochs=data["epochs"],
        files=data["files"],
    )


@contextlib.contextmanager
def unreplaced(folder: Path) -> Iterator[RunRecord | None]:
    """Read files of a run that belong together.

    Args:
        folder: the run's folder, which may not exist.

    Yields:
        The record, as `read_record` returns it.

    Raises:
        SessionFileError: another run has taken the folder's place in the meantime.
    """
    record = read_record(folder)
    replaced = SessionFileError(
        f"{folder} was replaced by another run while it was read; read it again", path=folder
    )
    try:
        yield record
    except SessionFileError as error:
        if read_record(folder) == record:
            raise
        raise replaced from error
    if read_record(folder) != record:
        raise replaced


def digest_parts(job: Job) -> dict[str, str]:
    """Return a digest of every part of a job that its result depends on.

    Args:
        job: a validated job; where the output goes does not count.
    """
    parts: dict[str, Json] = {
        "model": [job.model, job.model_args],
        "teacher": [job.teacher, job.teacher_args],
        "data": attrs.asdict(job.data),
        "train": job.train,
        "loop": None if job.loop is None else attrs.asdict(job.loop),
        "recipe": job.recipe.document,
        "export": [attrs.asdict(export) for export in job.export],
        "benchmark": None if job.benchmark is None else attrs.asdict(job.benchmark),
        "seed": job.seed,
    }
    files = {one.name: one.version for one in registry().plugins() if one.file is not None}
    if files:
        parts["plugins"] = files
    return {name: _digest(part) for name, part in parts.items()}


def changed_parts(record: RunRecord, job: Job) -> tuple[str, ...]:
    """Return the parts of a job that differ from those a run was started with.

    Args:
        record: the run's record.
        job: the job as it is now.
    """
    now = digest_parts(job)
    names = dict.fromkeys([*now, *record.parts])
    return tuple(name for name in names if record.parts.get(name) != now.get(name))


def _digest(value: Json) -> str:
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a job holds JSON data only, found {type(value).__name__}")
