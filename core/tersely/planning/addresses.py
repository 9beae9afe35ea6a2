"""Target names: parameters and buffers by name, inputs and outputs by ``_input_...`` addresses."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import attrs

INPUT = "_input_"
OUTPUT = "_output_"


@attrs.frozen
class Address:
    """Where an input or output target is.

    Attributes:
        side: input or output.
        key: None for the first tensor argument (``_input_``) or the output itself (``_output_``),
            an index, or an argument name or dictionary key.
    """

    side: Literal["input", "output"]
    key: int | str | None = None


@lru_cache(maxsize=4096)
def parse_address(target: str) -> Address | None:
    """Read a target name as an address.

    Args:
        target: a target name of the document.

    Returns:
        The address, or None when the name is a parameter's or buffer's.
    """
    if target.startswith(INPUT):
        return Address("input", _key(target[len(INPUT) :]))
    if target.startswith(OUTPUT):
        return Address("output", _key(target[len(OUTPUT) :]))
    return None


def _key(text: str) -> int | str | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else text


def twin(target: str) -> str | None:
    """Return the other spelling that a setting also serves (rule T4), or None.

    Args:
        target: ``_input_`` or ``_input_0``, ``_output_`` or ``_output_0``, or anything else.
    """
    return _TWINS.get(target)


_TWINS = {
    INPUT: INPUT + "0",
    INPUT + "0": INPUT,
    OUTPUT: OUTPUT + "0",
    OUTPUT + "0": OUTPUT,
}
