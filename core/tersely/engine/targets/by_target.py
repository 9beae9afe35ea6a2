"""Values by module and target, where an input or output answers to both of its spellings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from tersely.contracts.target_plan import TargetPlan
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionError
from tersely.planning.targets.addresses import twin
from tersely.text import nearest

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


def each_by_target(
    given: Mapping[str, Mapping[str, Value]], call: str
) -> Iterator[tuple[str, str, Value]]:
    """Yield module, target and value of what a user gave by module and target.

    Args:
        given: {module: {target: value}}.
        call: the method that was called.

    Raises:
        SessionError: it has another form.
    """
    _need_mapping(given, call)
    for module, targets in given.items():
        _need_mapping(targets, call)
        for target, value in targets.items():
            yield module, target, value


def _need_mapping(found: object, call: str) -> None:
    if not isinstance(found, Mapping):
        raise SessionError(
            f"{call}() found a {type(found).__name__}, expected {{module: {{target: value}}}}"
        )


def find_bound_target(
    module: str, target: str, by_name: Mapping[tuple[str, str], BoundTarget]
) -> BoundTarget:
    """Return the target a module and target name mean.

    Args:
        module: the module's name.
        target: the target's name, in either spelling.
        by_name: (module, target) -> target.

    Raises:
        SessionError: the plan has no such target.
    """
    bound = _find(module, target, by_name)
    if bound is None:
        names = [one.plan.name for one in by_name.values()]
        full = f"{module}.{target}" if module else target
        near = nearest(full, names)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SessionError(f"the plan has no target {full}{hint}", target=full)
    return bound


def find_named(name: str, by_name: Mapping[tuple[str, str], BoundTarget]) -> BoundTarget:
    """Return the target that a full name means.

    Args:
        name: the full name; targets of nested tensors have dots of their own.
        by_name: (module, target) -> target.

    Raises:
        SessionError: the plan has no such target.
    """
    parts = name.split(".")
    for count in range(len(parts) - 1, -1, -1):
        bound = _find(".".join(parts[:count]), ".".join(parts[count:]), by_name)
        if bound is not None:
            return bound
    return find_bound_target(".".join(parts[:-1]), parts[-1], by_name)


def _find(
    module: str, target: str, by_name: Mapping[tuple[str, str], BoundTarget]
) -> BoundTarget | None:
    return by_name.get((module, target)) or by_name.get((module, twin(target) or ""))
