"""Immutable JSON data, which many targets can share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from tersely.json_value import Json


class FrozenMapping(dict[str, Json]):
    """A JSON object that refuses every change, including changes of nested objects."""

    __slots__ = ()

    @classmethod
    def of(cls, values: Mapping[str, Json]) -> FrozenMapping:
        """Return a frozen copy: nested objects are frozen too, lists are copied."""
        return cls({key: _own(value) for key, value in values.items()})

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a plan's setting is frozen; make a new recipe and plan again")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # frozen, so it can have one
        # Values may be lists, so only keys are hashed, which are equal for equal objects.
        return hash(frozenset(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMapping, (dict(self),)


def thawed(value: Json) -> Json:
    """Return a copy of JSON data that may be changed.

    Args:
        value: any JSON value; tuples become lists.
    """
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    return [thawed(item) for item in value] if isinstance(value, (list, tuple)) else value


def _own(value: Json) -> Json:
    if isinstance(value, Mapping):
        return FrozenMapping.of(value)
    return [_own(item) for item in value] if isinstance(value, (list, tuple)) else value
