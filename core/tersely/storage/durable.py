"""Files that are complete or missing: written next to their place, synced, then moved into it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PARTIAL = ".partial"
"""The suffix of the name of a file that is still being written."""


def write_whole(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that a crash at any byte leaves the old content or the new one.

    Args:
        path: the file; its folder is made when it is missing. A link stays, and the file to which
            it leads is written. What is no file, such as a device, is written as it is.
        data: the whole content; text is written as UTF-8.

    Raises:
        OSError: the file cannot be written; the old content is untouched.
    """
    content = data.encode() if isinstance(data, str) else data
    place = Path(path)
    if place.exists() and not place.is_file():
        with place.open("wb") as stream:
            stream.write(content)
        return
    place = followed(place)
    make_folder(place.parent)
    partial = partial_path(place)
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(place)
    except BaseException:
        discard(partial)
        raise
    sync_folder(place.parent)


def followed(path: Path) -> Path:
    """Return where a link leads, as opening it would, or the path itself when it is no link.

    Args:
        path: a file or a folder, which need not exist. Of links that lead in a circle, one is
            returned.
    """
    # Path.resolve() raises a RuntimeError for links that lead in a circle, up to Python 3.12.
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def partial_path(path: Path) -> Path:
    """Return where the content of ``path`` is written before it is moved into place.

    Args:
        path: the final place; the partial file is next to it, so that the move is atomic.
    """
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


def move_whole(partial: Path, path: Path) -> None:
    """Sync a finished file and move it into its place.

    Args:
        partial: the finished file, in the same folder as ``path``.
        path: its place.

    Raises:
        OSError: the file cannot be synced or moved.
    """
    with partial.open("rb+") as stream:
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and sync each parent that got a new entry.

    Args:
        folder: the folder, which may exist.

    Raises:
        OSError: it cannot be made, or a file is in the way.
    """
    missing = []
    place = folder
    while not place.exists():
        missing.append(place)
        place = place.parent
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut.

    Args:
        folder: the folder.

    Raises:
        OSError: the folder cannot be synced.
    """
    if os.name == "nt":  # Windows has no descriptor for a folder and keeps names by journal
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file that nothing refers to; one that is gone or held is left alone.

    Args:
        path: the file.
    """
    with contextlib.suppress(OSError):
        path.unlink()
