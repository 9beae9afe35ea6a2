"""Two folders that change places in one step, where the system has a call for it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_HERE = -100
"""What Linux calls the working folder, from which relative paths go."""

_EXCHANGE = 2
"""The flag of both systems' calls."""


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change places, so that each exists at any time.

    Args:
        one: a file or folder.
        other: another on the same volume.

    Returns:
        Whether they have; False where the system or the volume cannot, and nothing has changed.
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
    except (AttributeError, OSError, TypeError):  # an old library, or Windows, which has none
        return False
    return not failed
