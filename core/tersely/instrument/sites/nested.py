"""Containers inside containers: finding an item and giving it another value (rule T1.8).

What an item of each kind of container is addressed by; the container that results has its type:

==================================  =====================================
container                           addressed by
==================================  =====================================
mapping                             a key, or the position of a key
dataclass                           a field, or the position of a field
named tuple                         a field, or a position
list, tuple                         a position
==================================  =====================================
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

Change = Callable[[Any], Any]


def replace_nested(
    value: Any, path: tuple[int | str, ...], change: Change, *, missing: Callable[[Any], Exception]
) -> Any:
    """Return a container in which an item somewhere inside was changed; nothing is modified.

    Args:
        value: the outermost container.
        path: the steps to the item.
        change: returns what the item becomes.
        missing: makes the error for a container on the way that has no such item.
    """
    if not path or value is None:
        return change(value)
    place = place_in(value, path[0])
    if place is None:
        raise missing(value)

    def deeper(item: Any) -> Any:
        return replace_nested(item, path[1:], change, missing=missing)

    return with_item(value, place, deeper)


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of a plain dataclass, or None for anything else."""
    if isinstance(value, type) or not dataclasses.is_dataclass(value):
        return None
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def items_of(value: Any) -> Mapping[Any, Any] | None:
    """Return a container's items by what they are addressed by, or None for anything else."""
    if isinstance(value, Mapping):
        return value
    fields = fields_of(value)
    if fields is not None:
        return fields
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return None


def place_in(value: Any, step: int | str) -> Any:
    """Return the key, field or position of an item, or None where there is no such item.

    Args:
        value: a container, or anything else, which has none.
        step: one step of an address; a number may be a key, a key's text or a position.
    """
    items = items_of(value)
    if items is None:
        return None
    if step in items:
        return step
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", ())
        return names.index(step) if step in names else None
    if isinstance(step, str):
        return None
    if str(step) in items:
        return str(step)
    return list(items)[step] if step < len(items) else None


def with_item(value: Any, place: Any, change: Change) -> Any:
    """Return a container in which one item was changed.

    Args:
        value: the container; not modified.
        place: what `place_in` returned.
        change: returns what the item becomes.
    """
    if isinstance(value, (list, tuple)):
        items = [change(item) if at == place else item for at, item in enumerate(value)]
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    if type(value) in (dict, OrderedDict):
        # Not copied: torch.compile gives an OrderedDict that was copied another order.
        changed = [(name, change(item) if name == place else item) for name, item in value.items()]
        return type(value)(changed)
    if not isinstance(value, Mapping):
        return dataclasses.replace(value, **{place: change(getattr(value, place))})
    if dataclasses.is_dataclass(type(value)):
        # A ModelOutput is a dictionary that is a dataclass: rebuilt from its own fields, it keeps
        # its type and its attributes, and the caller's object is not modified.
        return type(value)(**{**value, place: change(value[place])})
    copied: Any = copy.copy(value)
    copied[place] = change(value[place])
    return copied
