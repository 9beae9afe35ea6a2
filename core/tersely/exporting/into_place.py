"""Moving an exporter's files into place: an interruption leaves the old or the new ones."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tersely.errors import BrokenPluginError, ExportError
from tersely.exporting.exchanging import exchange
from tersely.exporting.scratch import BEFORE
from tersely.registry.record import Registration

_SHOWN = 3
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_INDEX = ".index.json"


def need_inside(written: Sequence[Path], scratch: Path, record: Registration) -> None:
    """Refuse files that an exporter wrote elsewhere, or did not write.

    Args:
        written: the paths that it returned.
        scratch: the folder that it was given.
        record: the record of its descriptor.

    Raises:
        BrokenPluginError: there is no path, or one is missing or elsewhere.
    """
    named = {"plugin": record.descriptor.name, "distribution": record.distribution}
    if not written:
        raise BrokenPluginError(
            f"the exporter of {record.title} says that it wrote nothing", **named
        )
    for path in written:
        if path.parent != scratch or not path.exists():
            raise BrokenPluginError(
                f"the exporter of {record.title} says that it wrote {path}, which is not there; "
                f"expected a file or folder in {scratch}, where its main file goes",
                **named,
            )


def need_replaceable(written: Sequence[Path], folder: Path, *, format: str) -> None:
    """Refuse to replace what is there if more than an earlier export would be lost.

    Args:
        written: finished files and folders.
        folder: their destination.
        format: their format, for errors.

    Raises:
        ExportError: a folder would replace a file or the reverse, or a folder has entries that the
            new one lacks; nothing was moved.
    """
    for path in written:
        place = folder / path.name
        if not place.exists():
            continue
        if path.is_dir() != place.is_dir():
            found, wanted = ("folder", "file") if place.is_dir() else ("file", "folder")
            raise ExportError(
                f"{place} is a {found}, and the format writes a {wanted}; give another path, or "
                f"move the {found} away",
                format=format,
            )
        others = _others(path, place) if path.is_dir() else []
        if others:
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            raise ExportError(
                f"{place} contains files that this export does not write and would delete: "
                f"{', '.join(others[:_SHOWN])}{more}; give another folder, or move these away",
                format=format,
            )


def _others(path: Path, place: Path) -> list[str]:
    """Return the entries of a folder that the new one lacks, except shards."""
    known = {_without_number(one.name) for one in path.iterdir()}
    return sorted(one.name for one in place.iterdir() if _without_number(one.name) not in known)


def _without_number(name: str) -> str:
    # An earlier export may have another number of shards, or none.
    return _SHARD.sub("", name).removesuffix(_INDEX)


def move_all(
    written: Sequence[Path], folder: Path, *, place: Path | None = None
) -> tuple[Path, ...]:
    """Move files and folders into a folder, the main one last.

    Files replace others of the same name in one step, as do folders if the system can exchange two;
    otherwise the old folder is moved aside first, and back if anything fails.

    Args:
        written: finished files and folders, the main one first.
        folder: their destination, on the same volume.
        place: the requested path. If the main one has another name, such as the index of several
            files, an old file at this path is removed at the end.

    Returns:
        Their places, in the same order.

    Raises:
        OSError: one cannot be moved.
    """
    for path in written:
        for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if one.is_file():
                _sync(one)
    places = [folder / path.name for path in written]
    for path, one in reversed(list(zip(written, places, strict=True))):
        _move(path, one)
    if place is not None and place not in places and place.is_file():
        place.unlink()
    return tuple(places)


def size_of(path: Path) -> int:
    """Return the total bytes of a file, or of all files in a folder.

    Args:
        path: the file or folder.
    """
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size


def _move(path: Path, place: Path) -> None:
    if not place.is_dir():
        path.replace(place)
        return
    if exchange(path, place):
        return
    aside = path.with_name(f"{path.name}{BEFORE}")
    place.rename(aside)
    try:
        path.rename(place)
    except BaseException:
        aside.rename(place)
        raise


def _sync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
