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
        path: the steps from there to a nested tensor: indices, keys and fields.
    """

    side: Literal["input", "output"]
    key: int | str | None = None
    path: tuple[int | str, ...] = ()

    @property
    def is_first(self) -> bool:
        """Whether it is the first argument, or the output itself or its first element."""
        return self.key in (None, 0) and not self.path

    @property
    def nested(self) -> str:
        """The path as addresses write it: empty, or each step after a dot."""
        return "".join(f".{step}" for step in self.path)


@lru_cache(maxsize=4096)
def parse_address(target: str) -> Address | None:
    """Read a target name as an address.

    Args:
        target: a target name of the document.

    Returns:
        The address, or None when the name is a parameter's or buffer's.
    """
    if target.startswith(INPUT):
        return _address("input", target[len(INPUT) :])
    if target.startswith(OUTPUT):
        return _address("output", target[len(OUTPUT) :])
    return None


def _address(side: Literal["input", "output"], text: str) -> Address:
    if not text:
        return Address(side)
    key, *path = (int(step) if step.isdecimal() else step for step in text.split("."))
    return Address(side, key, tuple(path))


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


def declared_channels(module: object, target: str) -> int | None:
    """Return how many channels a module says its input or output has, or None where it says none.

    Args:
        module: the module, whose attributes tell, as ``in_channels`` does.
        target: the address of its input or output.
    """
    found = parse_address(target)
    if found is None or found.path or found.key not in (None, 0):
        return None
    for name in _LENGTHS[found.side]:
        length = getattr(module, name, None)
        if isinstance(length, int):
            return length
    return None


_LENGTHS = {
    "input": ("in_channels", "in_features", "num_features"),
    "output": ("out_channels", "out_features", "num_features"),
}
