"""Names under which processes that share a search tell the others what they are about to try."""

from __future__ import annotations

import os
import socket

CLAIM = "claim: "
"""How the name of every claim begins."""


def own_claim() -> str:
    """Return the name of this process's claim."""
    return f"{CLAIM}{socket.gethostname()} {os.getpid()}"


def is_alive(claim: str) -> bool:
    """Tell whether a claim is of a process that may still be at work.

    Args:
        claim: what `own_claim` returned in that process.
    """
    host, _, pid = claim.removeprefix(CLAIM).rpartition(" ")
    if host != socket.gethostname():
        return True  # whether it lives cannot be seen from here; what it claims is only avoided
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
