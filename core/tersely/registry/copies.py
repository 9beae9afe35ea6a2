"""Plain copies of what a face describes, so that none of its own code runs later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import attrs

from tersely.json_value import Json
from tersely.registry.descriptors import Descriptor, ModuleSetting

Described = TypeVar("Described", Descriptor, ModuleSetting)
_DEEPEST = 100
_LARGEST = 100_000
_LONGEST = 500


def own_copy(item: Described, expected: type[Described]) -> Described:
    """Return a descriptor of exactly the expected class, made of plain text, numbers and mappings.

    Args:
        item: what a face returned; its class may be a foreign one.
        expected: the class of the copy, whose checks are made again.

    Raises:
        ValueError: a field holds what JSON does not, or far too much of it.
    """
    values = {}
    for field in attrs.fields(expected):
        values[field.name] = _plain(getattr(item, field.name), field.name, {}, 0)[0]
    return expected(**values)


def one_line(text: str) -> str:
    """Return text that a terminal shows as it is: on one line, of bounded length.

    Args:
        text: any text, which may hold control characters.
    """
    shown = "".join(each if each.isprintable() else " " for each in text[: 4 * _LONGEST])
    line = " ".join(shown.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _plain(value: object, place: str, known: _Known, depth: int) -> _Copy:
    """Return a copy, and how many values it holds; what is shared is copied once."""
    if value is None or type(value) in (bool, int):
        return value, 1
    if isinstance(value, str):
        return str.__str__(value), 1
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value), 1
    if not isinstance(value, Mapping | list | tuple):
        raise ValueError(f"{place} holds {_named(value)}, which JSON does not have")
    if depth == _DEEPEST:
        field = place.partition("/")[0]
        raise ValueError(f"{field} is nested more than {_DEEPEST} levels deep, or contains itself")
    if id(value) not in known:
        copied = _container(value, place, known, depth + 1)
        known[id(value)] = (value, copied)
    _, (copy, size) = known[id(value)]
    if size > _LARGEST:
        raise ValueError(f"{place} holds more than {_LARGEST} values")
    return copy, size


def _container(
    value: Mapping[object, object] | list[object] | tuple[object, ...],
    place: str,
    known: _Known,
    depth: int,
) -> _Copy:
    size = 1
    copy: Json
    if isinstance(value, Mapping):
        copy = {}
        for key, each in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{place} has the key {_named(key)}, expected text")
            name = str.__str__(key)
            copy[name], inner = _plain(each, f"{place}/{name}", known, depth)
            size += inner
            if size > _LARGEST:
                break
        return copy, size
    copy = []
    for index, each in enumerate(value):
        one, inner = _plain(each, f"{place}/{index}", known, depth)
        copy.append(one)
        size += inner
        if size > _LARGEST:
            break
    return tuple(copy) if isinstance(value, tuple) else copy, size


def _named(value: object) -> str:
    return str(value) if type(value) is float else f"a {type(value).__name__}"


_Copy = tuple[Json, int]

# With the value itself: a mapping may make its values when they are read, and an id is used again
# once its object is gone.
_Known = dict[int, tuple[object, _Copy]]
