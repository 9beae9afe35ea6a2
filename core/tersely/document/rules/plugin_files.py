"""The files that a job names as plugins, of which none is run because a document names it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from tersely.document.reading.positions import Finding
from tersely.json_value import Json
from tersely.registry.registry import registry

PLUGINS = "plugins"


def named_files(job: Json, directory: Path) -> tuple[Path, ...]:
    """Return the files that a job names as plugins, absolute.

    Args:
        job: plain JSON data; need not fit the schema.
        directory: the job's folder.
    """
    return tuple(path for _, _, path in _named(job, directory))


def unloaded(job: Json, directory: Path) -> Iterator[Finding]:
    """Yield a finding for each plugin file of a job that is not loaded.

    Args:
        job: plain JSON data; need not fit the schema.
        directory: the job's folder.
    """
    loaded = {record.file for record in registry().plugins() if record.file is not None}
    for index, written, path in _named(job, directory):
        if str(path) not in loaded:
            yield Finding(
                (PLUGINS, index),
                f"{written!r} is not loaded, since naming a file does not run it",
                f"read it, and then load it with --plugin {shlex.quote(str(path))}, or in Python "
                "with tersely.registry().register_file(...)",
            )


def _named(job: Json, directory: Path) -> Iterator[tuple[int, str, Path]]:
    written = job.get(PLUGINS) if isinstance(job, dict) else None
    for index, one in enumerate(written if isinstance(written, list) else []):
        if isinstance(one, str):
            yield index, one, (directory / one).resolve()
