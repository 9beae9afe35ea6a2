"""Python objects to plain JSON data: tuples become lists, mappings dicts, the rest is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import PurePath

from tersely.document.messages.wording import show
from tersely.document.reading.positions import LARGEST, MAX_DEPTH, Document
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
    copier = _Copier(reading)
    copy = copier.value(data)
    return reading.document(copy, characters=_CHARACTERS * copier.count)


_CHARACTERS = 10  # in the text, for each value


class _Copier:
    """Copies value by value; holds the reading it fills, its path, and what it is inside of.

    Attributes:
        count: how many values were copied.
    """

    def __init__(self, reading: Reading) -> None:
        self.count = 0
        self._reading = reading
        self._path: list[str | int] = []
        self._open: set[int] = set()

    def value(self, value: object) -> Json:
        """Return the plain copy of one value."""
        self.count += 1
        if len(self._path) > MAX_DEPTH:
            raise self._reading.too_deep(None)
        # Subclasses (numpy.float64, IntEnum, numpy.str_) become what they are made of.
        if isinstance(value, str):
            if len(value) > _LONG:  # Python itself repeats short strings
                self._reading.identify(id(value), None, characters=len(value))
            return str.__str__(value)
        if isinstance(value, (Mapping, list, tuple)):
            return self._container(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._reading.integer(int(value), tuple(self._path), None)
        if isinstance(value, float):
            return self._reading.number(float(value), tuple(self._path), None)
        return self._reading.note_unreadable(
            tuple(self._path), f"found {_describe(value)}, expected plain data", hint=_hint(value)
        )

    def _container(
        self, value: Mapping[object, object] | list[object] | tuple[object, ...]
    ) -> Json:
        self._reading.identify(id(value), None)
        if id(value) in self._open:
            raise self._reading.refusal("the data contains itself, so it would never end")
        self._open.add(id(value))
        try:
            return self._mapping(value) if isinstance(value, Mapping) else self._list(value)
        finally:
            self._open.discard(id(value))

    def _list(self, value: Sequence[object]) -> list[Json]:
        data: list[Json] = []
        for index, item in enumerate(value):
            self._path.append(index)
            data.append(self.value(item))
            self._path.pop()
        return data

    def _mapping(self, mapping: Mapping[object, object]) -> dict[str, Json]:
        data: dict[str, Json] = {}
        for key, item in mapping.items():
            if isinstance(key, str):
                name = str.__str__(key)
                self._path.append(name)
                data[name] = self.value(item)
                self._path.pop()
            else:
                self._reading.note(
                    tuple(self._path),
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
