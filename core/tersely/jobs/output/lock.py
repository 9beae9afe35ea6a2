"""One run of an output at a time: a lock next to it that names its owner and dies with it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import attrs

from tersely.errors import SessionFileError
from tersely.storage.durable import make_folder
from tersely.storage.locking import take_lock
from tersely.storage.processes import is_running

_held: set[Path] = set()
_guard = threading.Lock()


@attrs.frozen(kw_only=True)
class Owner:
    """Who holds a lock.

    Attributes:
        pid: the process.
        host: the machine it runs on.
        start: when it took the lock, as local time in ISO 8601.
    """

    pid: int
    host: str
    start: str


def lock_file(output: Path) -> Path:
    """Return the file that a run of an output holds while it is under way.

    Args:
        output: the folder of the result.
    """
    return output.with_name(f"{output.name}.lock")


@contextlib.contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Hold an output against every other run, in this process and in others.

    The operating system gives the lock back when its owner ends, however it ends, so what a killed
    run left is taken over. Only a lock of another machine is never taken over: whether its owner
    is alive cannot be seen from here.

    Args:
        output: the folder of the result; its parent is made when it is missing.

    Raises:
        SessionFileError: another run holds the output; names it and says what to do.
        OSError: the lock's file cannot be written.
    """
    place = lock_file(output)
    make_folder(place.parent)
    with _guard:
        if place in _held:
            raise _refusal(output, _ourselves())
        _held.add(place)
    try:
        descriptor = _take(output, place)
        try:
            yield
        finally:
            _give_back(descriptor, place)
    finally:
        with _guard:
            _held.discard(place)


def _take(output: Path, place: Path) -> int:
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_locked = take_lock(descriptor)
            owner = _read_owner(descriptor)
            if is_locked is False or (owner is not None and not _is_over(owner, is_locked)):
                raise _refusal(output, owner)
            if _is_same_file(descriptor, place):
                _write_owner(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # The run before removed the file after it was opened here.
        os.close(descriptor)


def _give_back(descriptor: int, place: Path) -> None:
    if sys.platform == "win32":  # an open file cannot be removed there
        os.ftruncate(descriptor, 0)
        os.close(descriptor)
        with contextlib.suppress(OSError):
            place.unlink()
        return
    with contextlib.suppress(OSError):
        if _is_same_file(descriptor, place):
            place.unlink()
    os.close(descriptor)


def _is_over(owner: Owner, is_locked: bool | None) -> bool:
    if owner.host != socket.gethostname():
        return False
    # A lock that could be taken shows that its owner has ended, even if its number is in use again.
    return bool(is_locked) or not _is_alive(owner.pid)


def _is_alive(pid: int) -> bool:
    # Our own number is one of the time before a restart; `_held` knows our own locks.
    return pid != os.getpid() and is_running(pid)


def _is_same_file(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False


def _ourselves() -> Owner:
    start = datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
    return Owner(pid=os.getpid(), host=socket.gethostname(), start=start)


def _write_owner(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, (json.dumps(attrs.asdict(_ourselves())) + "\n").encode())


def _read_owner(descriptor: int) -> Owner | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        data = json.loads(os.read(descriptor, 4096))
        return Owner(pid=int(data["pid"]), host=str(data["host"]), start=str(data["start"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # new, or cut off when its owner was killed


def _refusal(output: Path, owner: Owner | None) -> SessionFileError:
    who = (
        "another run that has just begun"
        if owner is None
        else f"process {owner.pid} on {owner.host}, since {owner.start}"
    )
    return SessionFileError(
        f"{output} is being written by {who}; wait for it to end, or name another output; if it "
        f"ended without releasing its lock, remove {lock_file(output)}",
        path=lock_file(output),
    )
