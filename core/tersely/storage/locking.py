"""A lock on a file that the operating system gives back when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_BYTE = 1 << 30  # beyond the text, which others read while the byte is locked


def take_lock(descriptor: int) -> bool | None:
    """Lock an open file for this process, without waiting.

    The lock belongs to the process: it is given back when the process closes any descriptor of
    the file, and a second attempt within the process succeeds.

    Args:
        descriptor: the file, open for writing.

    Returns:
        Whether the lock is ours now, or None where files cannot be locked.

    Raises:
        OSError: asking for the lock fails.
    """
    try:
        if sys.platform == "win32":
            import msvcrt  # not there on other systems

            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # not there on Windows

            # Not flock: its locks live on in the workers that a loader of the user's forks.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _BYTE)
    except OSError as error:
        return None if error.errno in _UNSUPPORTED else _not_ours(error)
    return True


def _not_ours(error: OSError) -> bool:
    if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
        return False
    raise error
