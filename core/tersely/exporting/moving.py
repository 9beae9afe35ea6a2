"""Moving what an exporter wrote into its place: an interruption leaves the old or the new."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tersely.errors import BrokenPluginError
from tersely.registry.record import Registration

_PREFIX = ".tersely-export-"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for unfinished files, next to their destination.

    Args:
        parent: where they go; made when it is missing.
    """
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def need_inside(written: Sequence[Path], scratch: Path, record: Registration) -> None:
    """Refuse what an exporter wrote elsewhere, or did not write.

    Args:
        written: what it says that it wrote.
        scratch: the folder that it was given.
        record: the exporter and who provides it.

    Raises:
        BrokenPluginError: there is nothing, or something is elsewhere.
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


def move_all(written: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Move files and folders into a folder, the main one last.

    Files take the place of those of the same name at once. Of a folder, the one that was there is
    moved aside first and back if anything fails.

    Args:
        written: finished files and folders, the main one first.
        folder: where they go, on the same volume.

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
    for path, place in reversed(list(zip(written, places, strict=True))):
        _move(path, place)
    return tuple(places)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder.

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
    aside = path.with_name(f"{path.name}.before")
    place.rename(aside)
    try:
        path.rename(place)
    except BaseException:
        aside.rename(place)
        raise


def _sync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
