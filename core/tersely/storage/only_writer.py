"""One writer of a folder at a time, for instance when every process of a training saves into it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tersely.errors import SessionFileError
from tersely.storage.durable import make_folder

_PATIENCE = 600.0
_PAUSE = 0.02


@contextlib.contextmanager
def only_writer(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Wait until nobody else writes into a folder, and let others wait meanwhile.

    The folder itself is locked, so no file is added to it. Nothing is waited for where a folder
    cannot be locked, as on Windows and on some network file systems.

    Args:
        directory: the folder; made when missing.

    Raises:
        SessionFileError: it cannot be made, or somebody else has been writing for ten minutes.
    """
    folder = Path(directory)
    with _reporting(folder, "made"):
        make_folder(folder)
    if sys.platform == "win32":
        yield
        return
    import fcntl  # not there on Windows

    with _reporting(folder, "opened"):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        _wait(descriptor, folder)
        yield
    finally:
        # A process that was forked meanwhile has the descriptor too, and would keep the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


@contextlib.contextmanager
def _reporting(folder: Path, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SessionFileError(
            f"{folder} cannot be {done}: {error.strerror or error}; choose a folder that can be "
            "read and written",
            path=folder,
        ) from error


def _wait(descriptor: int, folder: Path) -> None:
    import fcntl  # not there on Windows

    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # the file system has no locks of folders
        else:
            return
        if time.monotonic() > end:
            raise SessionFileError(
                f"{folder}: another process has been saving into it for {_PATIENCE:.0f} seconds; "
                "end it, or choose another folder",
                path=folder,
            )
        time.sleep(_PAUSE)
