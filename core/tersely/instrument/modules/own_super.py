"""Finds ``super(self.__class__, self)``, which calls itself for ever in any subclass."""

from __future__ import annotations

import dis
from types import CodeType

from torch import nn


def method_with_super_of_self(cls: type[nn.Module]) -> str | None:
    """Return the qualified name of a method that asks for the class above an object's own.

    ``__init__`` may do so: an object that exists is not made again.

    Args:
        cls: the user's class.
    """
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "torch" or base is object:
            continue
        for name, value in base.__dict__.items():
            code = getattr(value, "__code__", None)
            if name != "__init__" and isinstance(code, CodeType) and _asks_for_super_of_self(code):
                return f"{base.__name__}.{name}"
    return None


def _asks_for_super_of_self(code: CodeType) -> bool:
    if "super" not in code.co_names or not {"__class__", "type"}.intersection(code.co_names):
        return False
    names = [
        one.argval
        for one in dis.get_instructions(code)
        if one.opname.startswith(("LOAD_GLOBAL", "LOAD_FAST", "LOAD_ATTR", "LOAD_SUPER"))
    ]
    self = code.co_varnames[0] if code.co_argcount else "self"
    starts = [place for place, name in enumerate(names) if name == "super"]
    return any(names[at + 1 : at + 3] in ([self, "__class__"], ["type", self]) for at in starts)
