"""Exporting to a file: refuse, write aside, check in the consumer, then move into place."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
from jsonschema import Draft202012Validator
from torch.export import ExportedProgram

from tersely.contracts.exporter import Exporter, ExportSource
from tersely.engine.progress import Steps
from tersely.errors import BrokenPluginError, ConfigError, ExportError, Problem, TerselyError
from tersely.exporting.into_place import (
    move_all,
    need_inside,
    need_replaceable,
    size_of,
)
from tersely.exporting.scratch import scratch_folder
from tersely.exporting.undeclared import refused_meanings, refused_numberings
from tersely.json_value import Json
from tersely.log import logger
from tersely.registry.collect import describe
from tersely.registry.implementation import load_implementation
from tersely.registry.kinds import EXPORTER
from tersely.registry.record import Registration
from tersely.registry.registry import registry
from tersely.storage.durable import followed

_LEAST_SPACE = 1 << 16
"""The free bytes of a disk below which a failure to write is one of space."""


@attrs.frozen(kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        format: the format's name, as it was requested.
        paths: the files and folders, the main one first.
        bytes: their total size on disk.
        checks: results of the comparisons in the format's consumer; empty without a check.
    """

    format: str
    paths: tuple[Path, ...]
    bytes: int
    checks: Mapping[str, Json] = attrs.field(factory=dict)

    def to_dict(self) -> dict[str, Json]:
        """Return the same as JSON data, with the names of paths only."""
        return {
            "format": self.format,
            "files": [path.name for path in self.paths],
            "bytes": self.bytes,
            "checks": dict(self.checks),
        }


@attrs.frozen(eq=False)
class MadeExporter:
    """An exporter made with its options, and the plugin that provides it.

    Attributes:
        format: the format's name, as it was requested.
        exporter: the plugin's object.
        record: its descriptor and distribution.
    """

    format: str
    exporter: Exporter
    record: Registration

    @property
    def suffix(self) -> str:
        """The ending of the main file."""
        return str(getattr(self.record.descriptor, "suffix", ""))

    @property
    def holds(self) -> tuple[str, ...]:
        """What the format declares to hold beyond integer zero points and rectangular blocks."""
        return tuple(getattr(self.record.descriptor, "holds", ()))


def make_exporter(format: str, options: Mapping[str, Json] | None = None) -> MadeExporter:
    """Make the exporter of a format.

    Args:
        format: its name in the registry.
        options: its options.

    Raises:
        PluginError: no plugin provides the format, or its plugin is broken.
        ConfigError: the options are wrong.
        MissingExtraError: a required library is not installed.
    """
    record = registry().exporters.record(format)
    options = dict(options or {})
    errors = Draft202012Validator(record.descriptor.options).iter_errors(options)
    problems = [
        Problem(".".join(["options", *map(str, error.absolute_path)]), error.message)
        for error in errors
    ]
    if problems:
        raise ConfigError(problems, source=f"the export to {format}")
    implementation = load_implementation(EXPORTER, record)
    with _foreign(record, "making it"):
        exporter = implementation(**options)
    if not isinstance(exporter, Exporter):
        raise BrokenPluginError(
            f"exporter {record.descriptor.name!r} of {record.title} is a {type(exporter).__name__} "
            "without refusals(), write() and check(), which every exporter must have",
            plugin=record.descriptor.name,
            distribution=record.distribution,
        )
    return MadeExporter(format, exporter, record)


def export_source(
    made: MadeExporter, source: ExportSource, path: str | os.PathLike[str], *, is_checked: bool
) -> Exported:
    """Write a session in a format; an existing file stays until the new one has been checked.

    Args:
        made: the exporter.
        source: the session.
        path: the file or folder; missing parents are created. In an existing folder, or for a path
            that ends in a slash, the file is ``model`` with the format's ending.
        is_checked: whether to read the result with the format's consumer and compare.

    Raises:
        ExportError: the path has another format's ending, the format cannot hold a target, its
            consumer computes other values, or an existing folder at the path has other files too.
        BrokenPluginError: the exporter fails.
        OSError: a file cannot be written.
    """
    place = _place(path, made.suffix)
    _need_own_ending(place, made)
    steps = Steps(made.format)
    source = _with_progress(source, steps)
    steps.begin("check what the format holds")
    numbered = tuple(refused_numberings(source, made.holds))
    if numbered:
        raise ExportError(numbered, format=made.format)
    with _foreign(made.record, "refusals()"):
        refusals = tuple(made.exporter.refusals(source))
    named = {one.target for one in refusals}
    refusals += tuple(
        one for one in refused_meanings(source, made.holds) if one.target not in named
    )
    if refusals:
        raise ExportError(refusals, format=made.format)
    with scratch_folder(place.parent) as scratch:
        main = scratch / place.name
        steps.begin("write")
        with _foreign(made.record, "write()"), _space_in(scratch):
            written = [Path(one) for one in made.exporter.write(source, main)]
        need_inside(written, scratch, made.record)
        need_replaceable(written, place.parent, format=made.format)
        checks: Mapping[str, Json] = {}
        if is_checked:
            steps.begin("read it back and compare")
            with _foreign(made.record, "check()"):
                checks = dict(made.exporter.check(source, main))
        count = sum(size_of(one) for one in written)
        paths = move_all(written, place.parent, place=place)
    steps.end()
    logger(__name__).info("exported", format=made.format, path=str(place), bytes=count)
    return Exported(format=made.format, paths=paths, bytes=count, checks=checks)


def _with_progress(source: ExportSource, steps: Steps) -> ExportSource:
    """Return a source that reports progress: the exporter's steps, and the capture of its graph."""

    def make_program() -> ExportedProgram:
        with steps.within("capture the graph"):
            return source.make_program()

    return attrs.evolve(source, make_program=make_program, tell=steps.begin)


def _need_own_ending(place: Path, made: MadeExporter) -> None:
    """Refuse a path with the ending of another format; a format may declare no ending."""
    if not made.suffix or place.suffix in ("", made.suffix):
        return
    formats = registry().exporters
    others = [name for name in formats if formats.info(name).suffix == place.suffix]
    if others:
        raise ExportError(
            f"{place.name} has the ending of {others[0]}, and a file of {made.format} ends "
            f"in {made.suffix}; give another path",
            format=made.format,
        )


def _place(path: str | os.PathLike[str], suffix: str) -> Path:
    place = Path(path)
    is_folder = os.fspath(path).endswith(("/", os.sep)) or (suffix and place.is_dir())
    return followed((place / f"model{suffix}" if is_folder else place).absolute())


@contextmanager
def _space_in(folder: Path) -> Iterator[None]:
    """Let whatever a library raises on a full disk be what the system says of it."""
    try:
        yield
    except TerselyError:
        raise  # of the session, whatever space there is
    except Exception as error:
        is_said = isinstance(error, OSError) and error.filename is not None
        if is_said or shutil.disk_usage(folder).free >= _LEAST_SPACE:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.parent)) from error


@contextmanager
def _foreign(record: Registration, doing: str) -> Iterator[None]:
    try:
        yield
    except (TerselyError, OSError):
        raise
    except Exception as error:  # foreign code
        raise BrokenPluginError(
            f"exporter {record.descriptor.name!r} of {record.title} failed: {doing} raised "
            f"{describe(error)}; nothing was written",
            plugin=record.descriptor.name,
            distribution=record.distribution,
        ) from error
