"""Exchanging two folders in one step, if the system has a call for it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_HERE = -100
"""Linux's constant for the working folder, to which relative paths refer."""

_EXCHANGE = 2
"""The flag of both systems' calls."""


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths, so that each exists at any time.

    Args:
        one: a file or folder.
        other: another on the same volume.

    Returns:
        Whether they were exchanged; False if the system or the volume cannot do it.
    """
    first, second = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            failed = library.renameat2(_HERE, first, _HERE, second, _EXCHANGE)
        elif sys.platform == "darwin":
            failed = library.renamex_np(first, second, _EXCHANGE)
        else:
            return False
    except (AttributeError, OSError, TypeError):  # missing in old libraries and on Windows
        return False
    return not failed
