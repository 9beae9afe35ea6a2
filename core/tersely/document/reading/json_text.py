"""JSON text to data with places: strict JSON, with the location of each mistake."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from functools import cached_property
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed lacks it

from tersely.document.path import Path
from tersely.document.reading.positions import MAX_DEPTH, Document, Mark, Part
from tersely.document.reading.record import Reading
from tersely.json_value import Json

_BLANKS = " \t\n\r"
_BLANK = re.compile(rf"[{_BLANKS}]*")
_HINTS = {
    "Expecting property name enclosed in double quotes": (
        "put keys in double quotes, without a comma after the last one"
    ),
    "Illegal trailing comma before end of object": "remove the comma after the last entry",
    "Illegal trailing comma before end of array": "remove the comma after the last item",
}


def read_json(text: str, *, source: str | None = None) -> Document:
    """Read one JSON document.

    Args:
        text: the whole text.
        source: the file it came from, for errors.

    Returns:
        The data, with keys given twice among its findings.

    Raises:
        ConfigError: the text is not JSON or is empty.
    """
    reading = Reading(source)
    if not text.strip():
        raise reading.refusal("the file is empty, expected a document", mark=Mark(1, 1))
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        problem = error.msg[0].lower() + error.msg[1:]
        raise reading.refusal(
            f"not JSON: {problem}", hint=_HINTS.get(error.msg), mark=Mark(error.lineno, error.colno)
        ) from error
    except RecursionError as error:
        raise reading.refusal("mappings and lists are nested too deeply") from error
    except ValueError as error:  # an integer beyond sys.get_int_max_str_digits()
        raise reading.refusal("an integer has too many digits") from error
    walker = _Walker(text, reading)
    return reading.document(walker.read(), walker, characters=len(text))


class _Walker:
    """Walks text that is known to be JSON; holds the reading it fills, and where values begin.

    ==================  =========================================================
    identity of         what is kept of it
    ==================  =========================================================
    a list              the index in the text of each of its values
    a mapping           key -> the indices of the key and of its value
    ==================  =========================================================
    """

    def __init__(self, text: str, reading: Reading) -> None:
        self._text = text
        self._reading = reading
        self._scalar = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # the same
        self._path: list[str | int] = []
        self._items: dict[int, list[int]] = {}
        self._pairs: dict[int, dict[str, tuple[int, int]]] = {}
        self._start = _skip(text, 0)
        self._data: Json = None

    def read(self) -> Json:
        """Return the data."""
        self._data, _ = self._value(self._start)
        return self._data

    def mark(self, path: Path, part: Part) -> Mark:
        """Return the place of a key or value, or of the innermost thing around it."""
        data, index = self._data, self._start
        for depth, step in enumerate(path, start=1):
            if isinstance(data, dict) and step in data:
                key, index = self._pairs[id(data)][str(step)]
                if part == "key" and depth == len(path):
                    index = key
            elif isinstance(data, list) and isinstance(step, int) and step < len(data):
                index = self._items[id(data)][step]
            else:
                break
            data = data[step]
        return self._place(index)

    def _value(self, index: int) -> tuple[Json, int]:
        if len(self._path) > MAX_DEPTH:
            raise self._reading.too_deep(self._place(index))
        if self._text[index] == "{":
            return self._mapping(index)
        if self._text[index] == "[":
            return self._list(index)
        value, end = self._scalar(self._text, index)
        if isinstance(value, float):
            value = self._reading.number(value, tuple(self._path), self._place(index))
        elif isinstance(value, int) and not isinstance(value, bool):
            value = self._reading.integer(value, tuple(self._path), self._place(index))
        return value, end

    def _mapping(self, index: int) -> tuple[Json, int]:
        data: dict[str, Json] = {}
        starts = self._pairs[id(data)] = {}
        index = _skip(self._text, index + 1)
        while self._text[index] != "}":
            start = index
            key, index = scanstring(self._text, index + 1, True)
            index = _skip(self._text, _skip(self._text, index) + 1)
            self._path.append(key)
            value, end = self._value(index)
            if key in data:
                first = self._place(starts[key][0])
                self._reading.note_twice(tuple(self._path), self._place(start), first=first)
            else:
                data[key] = value
                starts[key] = start, index
            self._path.pop()
            index = self._next(end)
        return data, index + 1

    def _list(self, index: int) -> tuple[Json, int]:
        data: list[Json] = []
        starts = self._items[id(data)] = []
        index = _skip(self._text, index + 1)
        while self._text[index] != "]":
            self._path.append(len(data))
            starts.append(index)
            value, index = self._value(index)
            self._path.pop()
            data.append(value)
            index = self._next(index)
        return data, index + 1

    def _next(self, index: int) -> int:
        index = _skip(self._text, index)
        return _skip(self._text, index + 1) if self._text[index] == "," else index

    @cached_property
    def _lines(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n", self._text))]

    def _place(self, index: int) -> Mark:
        line = bisect_right(self._lines, index)
        return Mark(line, index - self._lines[line - 1] + 1)


def _skip(text: str, index: int) -> int:
    if text[index : index + 1] not in _BLANKS:
        return index
    match = _BLANK.match(text, index)
    return match.end() if match else index
