"""The folder of an export that is not finished, and those that killed exports have left."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tersely.errors import ExportError
from tersely.log import logger
from tersely.storage.locking import take_lock

BEFORE = ".before"
"""How the name of what was at the destination ends, while something else takes its place."""

_PREFIX = ".tersely-export-"
_LOCK = ".lock"
_HOST_BYTES = 255
_held: set[tuple[int, int]] = set()  # a folder may be reached by several paths
_guard = threading.Lock()


@contextlib.contextmanager
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
        scratch, descriptor, identity = _make(parent)
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
            _held.discard(identity)


def remove_left(parent: Path) -> None:
    """Remove the folders of exports that were killed; one that may be under way stays.

    Whether an export of another machine is under way cannot be seen from here, so its folder stays
    too, as does one that cannot be read or put back.

    Args:
        parent: where they are.
    """
    for path in sorted(parent.glob(f"{_PREFIX}*")):
        # What is gone, of another user or no folder of an export cannot be opened.
        with _guard, contextlib.suppress(OSError):
            # A lock does not hold against its own process, which would lose it here.
            if not path.is_symlink() and _identity(path) not in _held:
                _remove_if_left(path, parent)


def _remove_if_left(path: Path, parent: Path) -> None:
    descriptor = os.open(path / _LOCK, os.O_RDWR)
    try:
        # An export that was not killed names its machine after it has taken the lock.
        if os.read(descriptor, _HOST_BYTES) != _host() or take_lock(descriptor) is not True:
            return
        _give_back(path, parent)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
    shutil.rmtree(path, ignore_errors=True)  # Windows removes no file that is open
    logger(__name__).info("unfinished_export_removed", path=str(path))


def _make(parent: Path) -> tuple[Path, int, tuple[int, int]]:
    """Return a new folder, the descriptor that holds it, and its identity."""
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        return scratch, _hold(scratch), _identity(scratch)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _hold(scratch: Path) -> int:
    with _guard:
        descriptor = os.open(scratch / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            take_lock(descriptor)
            os.write(descriptor, _host())
        except OSError:
            os.close(descriptor)
            raise
        _held.add(_identity(scratch))
        return descriptor


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _host() -> bytes:
    return socket.gethostname().encode()[:_HOST_BYTES]


def _give_back(path: Path, parent: Path) -> None:
    """Put a folder back that was moved aside when the new one had not taken its place yet."""
    for aside in sorted(path.glob(f"*{BEFORE}")):
        new = path / aside.name.removesuffix(BEFORE)
        if new.exists() and not (parent / new.name).exists():
            aside.rename(parent / new.name)
