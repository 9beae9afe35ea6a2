"""The one reserved prefix under which laconic keeps state on the user's modules."""

from __future__ import annotations

from laconic.planning.classes import RESERVED

PREFIX = RESERVED
INSTRUMENTS = RESERVED + "instruments"


def mask_buffer(target: str) -> str:
    """Return the name of the buffer that holds a target's mask.

    Args:
        target: the parameter's name or the address of an input or output.
    """
    return f"{PREFIX}{target}_mask"
