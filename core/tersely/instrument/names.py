"""The reserved prefix under which tersely keeps state, and the order of steps on one tensor."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from torch import nn

from tersely.planning.selecting.classes import RESERVED

PREFIX = RESERVED
INSTRUMENTS = RESERVED + "instruments"
NAME = RESERVED + "name"
LOST = RESERVED + "lost_write"
HELD = RESERVED + "held"
DENSE = RESERVED + "dense_gradients"
WHOLE = RESERVED + "whole_masks"
LAYOUT = RESERVED + "layout"
READ = RESERVED + "read"
KEPT = RESERVED + "kept"

MASK, FOLD, SCALE, QUANTIZE, UNSCALE, TAP = range(6)
"""Places of the steps on one tensor (rule O1): observers and taps see what will be deployed."""


STATE_PARTS = (
    "scale",
    "zero_point",
    "low",
    "high",
    "input_scale",
    "size",
    "in_force",
    "levels",
    "calls",
)
"""What quantization keeps of a target: its dtypes do not follow the model's."""


def _spelled(target: str) -> str:
    # A checkpoint's reader takes a dot in the name of a buffer for one between modules.
    return target.replace(".", "/")


def learned_buffer(target: str, name: str) -> str:
    """Return the name of a buffer that holds what a quantizer learns of a target.

    Args:
        target: the parameter's name or the address of an input or output.
        name: what is learned.
    """
    return f"{PREFIX}{_spelled(target)}_learned_{name}"


def is_learned_scale(name: str) -> bool:
    """Tell whether a buffer holds what a quantizer learns.

    Args:
        name: the buffer's name.
    """
    return name.startswith(PREFIX) and "_learned_" in name


def is_state(name: str) -> bool:
    """Tell whether a buffer holds a part of quantization's state.

    Args:
        name: the buffer's name.
    """
    if is_learned_scale(name):
        return False
    return name.startswith(PREFIX) and name.endswith(tuple(f"_{part}" for part in STATE_PARTS))


@functools.cache  # each step asks for it for every target, of which few names differ
def mask_buffer(target: str) -> str:
    """Return the name of the buffer that holds a target's mask.

    Args:
        target: the parameter's name or the address of an input or output.
    """
    return f"{PREFIX}{_spelled(target)}_mask"


def masked_target(buffer: str) -> str:
    """Return the target whose mask a buffer holds.

    Args:
        buffer: what `mask_buffer` returned.
    """
    return buffer.removeprefix(PREFIX).removesuffix("_mask").replace("/", ".")


def state_buffer(target: str, part: str) -> str:
    """Return the name of a buffer that holds something of a target.

    Args:
        target: the parameter's name or the address of an input or output.
        part: what it holds, such as ``scale``.
    """
    return f"{PREFIX}{_spelled(target)}_{part}"


def full_name(module: nn.Module, target: str) -> str:
    """Return the name by which errors call a target of an instrumented module.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of an input or output.
    """
    name = module.__dict__.get(NAME, "")
    return f"{name}.{target}" if name else target


def moved_flag(target: str) -> str:
    """Return the name of the attribute that says that a range has moved in this step.

    Args:
        target: the parameter's name or the address of an input or output.
    """
    return f"{PREFIX}{_spelled(target)}_is_moved"


def strange_flag(target: str) -> str:
    """Return the name of the attribute that says that values of a target were not finite.

    Args:
        target: the parameter's name or the address of the input or output.
    """
    return f"{PREFIX}{target}_is_strange"


def known_flag(target: str) -> str:
    """Return the name of the attribute that says that the scales of a target are in force.

    Args:
        target: the parameter's name or the address of the input or output.
    """
    return f"{PREFIX}{target}{_KNOWN}"


_KNOWN = "_is_known"


def known_flags(attributes: Iterable[str]) -> tuple[str, ...]:
    """Return the attributes of a module that say that the scales of a target are in force.

    Args:
        attributes: the names of all its attributes.
    """
    # Without a call for each: a module has twenty of them, and at most a few are flags.
    found = [name for name in attributes if _KNOWN in name]
    return tuple([one for one in found if one.startswith(PREFIX) and one.endswith(_KNOWN)])


def is_moved_flag(name: str) -> bool:
    """Tell whether an attribute of a module says that a range has moved in this step.

    Args:
        name: the attribute's name.
    """
    return name.startswith(PREFIX) and name.endswith("_is_moved")
