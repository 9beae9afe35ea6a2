"""Values by module and target, where an input or output answers to both of its spellings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tersely.contracts.target_plan import TargetPlan
from tersely.planning.addresses import twin

Value = TypeVar("Value")


class ByTarget(dict[str, Value]):
    """Target name -> value; ``_input_`` and ``_input_0`` find the same (rule T4)."""

    def __missing__(self, target: str) -> Value:
        other = twin(target)
        if other is not None and other in self.keys():
            return self[other]
        raise KeyError(target)


def by_target(values: Iterable[tuple[TargetPlan, Value]]) -> dict[str, dict[str, Value]]:
    """Return {module: {target: value}}.

    Args:
        values: each target with its value.
    """
    found: dict[str, dict[str, Value]] = {}
    for target, value in values:
        found.setdefault(target.module, ByTarget())[target.target] = value
    return found
