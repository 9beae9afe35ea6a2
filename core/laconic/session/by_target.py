"""A mapping by target name in which an input or output answers to both of its spellings."""

from __future__ import annotations

from typing import TypeVar

from laconic.planning.addresses import twin

Value = TypeVar("Value")


class ByTarget(dict[str, Value]):
    """Target name -> value; ``_input_`` and ``_input_0`` find the same (rule T4)."""

    def __missing__(self, target: str) -> Value:
        other = twin(target)
        if other is not None and other in self.keys():
            return self[other]
        raise KeyError(target)
