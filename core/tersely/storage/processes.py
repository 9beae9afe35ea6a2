"""Whether another process of this machine is still at work."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_STATE, _START = 0, 19
"""The positions of both after the name in ``/proc/PID/stat``, see proc(5)."""


def is_running(pid: int) -> bool:
    """Tell whether a process of this machine may still be at work.

    Args:
        pid: its number.
    """
    if sys.platform == "win32":  # where the signal 0 is not a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # alive, and of another user
        return True
    # A zombie still exists, but does nothing.
    return _known(pid, _STATE) not in ("Z", "X")


def start_of(pid: int) -> str:
    """Return what distinguishes a process from a later one with its number; empty if nothing does.

    Args:
        pid: its number.
    """
    return _known(pid, _START)


def _known(pid: int, place: int) -> str:
    """Return what Linux knows of a process; empty on other systems."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[place]
    except (OSError, IndexError):
        return ""
