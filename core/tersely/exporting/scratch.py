"""The folder of an export that is not finished, and those that killed exports have left."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tersely.errors import ExportError
from tersely.log import logger
from tersely.storage.locking import take_lock

BEFORE = ".before"
"""How the name of what was at the destination ends, while something else takes its place."""

_PREFIX = ".tersely-export-"
_LOCK = ".lock"
_held: set[Path] = set()
_guard = threading.Lock()


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for unfinished files, next to their destination.

    What killed exports have left there is removed first; folders of those under way stay.

    Args:
        parent: where they go; made when it is missing.

    Raises:
        ExportError: it cannot be made, or nothing can be written into it.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_left(parent)
        scratch, descriptor = _make(parent)
    except OSError as error:
        raise ExportError(
            f"nothing can be written into {parent}: {error.strerror}; give another path"
        ) from error
    try:
        yield scratch
    finally:
        os.close(descriptor)  # first, since an open file cannot be removed on Windows
        shutil.rmtree(scratch, ignore_errors=True)
        with _guard:
            _held.discard(scratch)


def remove_left(parent: Path) -> None:
    """Remove the folders of exports that were killed; one that may be under way stays.

    Args:
        parent: where they are.
    """
    for path in sorted(parent.glob(f"{_PREFIX}*")):
        with _guard:
            # A lock does not hold against its own process, which would lose it here.
            if path in _held or path.is_symlink():
                continue
            try:
                descriptor = os.open(path / _LOCK, os.O_RDWR)
            except OSError:  # not yet locked, gone, or of another user
                continue
            try:
                is_over = take_lock(descriptor) is True
                if is_over:
                    _give_back(path, parent)
            finally:
                os.close(descriptor)
        if is_over:
            shutil.rmtree(path, ignore_errors=True)
            logger(__name__).info("unfinished_export_removed", path=str(path))


def _make(parent: Path) -> tuple[Path, int]:
    """Return a folder of its own and the descriptor that holds it."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            descriptor = _hold(scratch)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        if descriptor is not None:
            return scratch, descriptor


def _hold(scratch: Path) -> int | None:
    """Lock a new folder; None where another export has taken it for one that was left."""
    with _guard:
        descriptor = os.open(scratch / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        if take_lock(descriptor) is not False and (scratch / _LOCK).exists():
            _held.add(scratch)
            return descriptor
        os.close(descriptor)
        return None


def _give_back(path: Path, parent: Path) -> None:
    """Put a folder back that was moved aside when the new one had not taken its place yet."""
    for aside in sorted(path.glob(f"*{BEFORE}")):
        new = path / aside.name.removesuffix(BEFORE)
        if new.exists() and not (parent / new.name).exists():
            aside.rename(parent / new.name)
