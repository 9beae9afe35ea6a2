"""Python objects to plain JSON data: tuples become lists, mappings dicts, the rest is refused."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import PurePath

from tersely.document.messages.wording import show
from tersely.document.path import Path
from tersely.document.reading.positions import LARGEST, Document
from tersely.document.reading.record import Reading
from tersely.json_value import Json

_LONG = 1000  # characters


def read_python(data: object) -> Document:
    """Copy Python data into plain JSON data.

    Args:
        data: mappings, lists, tuples, strings, numbers, booleans and None.

    Returns:
        The copy, with objects that are none of these among its findings.

    Raises:
        ConfigError: the data contains itself, or is too deep or too large to be meant.
    """
    reading = Reading(None)
    return reading.document(_Copier(reading).value(data, ()))


class _Copier:
    """Copies value by value; holds the reading it fills and the containers it is inside of."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._open: set[int] = set()

    def value(self, value: object, path: Path) -> Json:
        """Return the plain copy of one value."""
        is_container = isinstance(value, (Mapping, list, tuple))
        length = len(value) if isinstance(value, str) else 0
        # Python itself repeats short strings.
        identity = id(value) if is_container or length > _LONG else None
        self._reading.enter(path, None, identity=identity, characters=length)
        if isinstance(value, (Mapping, list, tuple)):
            return self._container(value, path)
        # Subclasses (numpy.float64, IntEnum, numpy.str_) become what they are made of.
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._reading.integer(int(value), path, None)
        if isinstance(value, float):
            return self._reading.number(float(value), path, None)
        if isinstance(value, str):
            return str.__str__(value)
        return self._reading.note_unreadable(
            path, f"found {_describe(value)}, expected plain data", hint=_hint(value)
        )

    def _container(
        self, value: Mapping[object, object] | list[object] | tuple[object, ...], path: Path
    ) -> Json:
        if id(value) in self._open:
            raise self._reading.refusal("the data contains itself, which would never end")
        self._open.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, path)
            return [self.value(item, (*path, index)) for index, item in enumerate(value)]
        finally:
            self._open.discard(id(value))

    def _mapping(self, mapping: Mapping[object, object], path: Path) -> dict[str, Json]:
        data: dict[str, Json] = {}
        for key, item in mapping.items():
            if isinstance(key, str):
                name = str.__str__(key)
                data[name] = self.value(item, (*path, name))
            else:
                self._reading.note(
                    path,
                    f"found the key {_describe(key)}, expected a string",
                    hint=_hint(key),
                )
        return data


def _describe(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    if isinstance(value, int) and not isinstance(value, bool):
        return show(int(value))
    if isinstance(value, (int, float, type(None))):
        return repr(value)
    return f"an object of the class {type(value).__qualname__}"


def _hint(value: object) -> str | None:
    name = getattr(value, "__name__", None)  # classes and functions
    if isinstance(name, str):
        return f"write its name, {name!r}"
    if isinstance(value, int) and abs(value) > LARGEST:
        return None
    if isinstance(value, (int, float, PurePath)):
        return f"write {str(value)!r}"
    if isinstance(value, Set):
        return "write a list"
    if callable(getattr(value, "item", None)):
        return "write the number itself, which .item() returns"
    return None
