"""JSON text to data with places: strict JSON, and a mistake is shown where it stands."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed lacks it

from tersely.document.path import Path
from tersely.document.reading.positions import Document, Mark
from tersely.document.reading.record import Reading
from tersely.json_value import Json

_BLANK = re.compile(r"[ \t\n\r]*")
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
    return reading.document(_Walker(text, reading).value(_skip(text, 0), ())[0])


class _Walker:
    """Walks text that is known to be JSON; holds the text and the reading it fills."""

    def __init__(self, text: str, reading: Reading) -> None:
        self._text = text
        self._reading = reading
        self._scalar = json.JSONDecoder().raw_decode
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._line = 0

    def value(self, index: int, path: Path) -> tuple[Json, int]:
        """Return the value that begins at an index, and the index after it."""
        mark = self._mark(index)
        self._reading.enter(path, mark)
        if self._text[index] == "{":
            return self._mapping(index, path)
        if self._text[index] == "[":
            return self._list(index, path)
        value, index = self._scalar(self._text, index)
        if isinstance(value, float):
            value = self._reading.number(value, path, mark)
        elif isinstance(value, int) and not isinstance(value, bool):
            value = self._reading.integer(value, path, mark)
        return value, index

    def _mapping(self, index: int, path: Path) -> tuple[Json, int]:
        data: dict[str, Json] = {}
        index = _skip(self._text, index + 1)
        while self._text[index] != "}":
            mark = self._mark(index)
            key, index = scanstring(self._text, index + 1, True)
            index = _skip(self._text, index) + 1
            repeated = key in data
            if repeated:
                self._reading.note_twice((*path, key), mark)
            else:
                self._reading.keys[(*path, key)] = mark
            value, index = self.value(_skip(self._text, index), (*path, key))
            if not repeated:
                data[key] = value
            index = self._next(index)
        return data, index + 1

    def _list(self, index: int, path: Path) -> tuple[Json, int]:
        data: list[Json] = []
        index = _skip(self._text, index + 1)
        while self._text[index] != "]":
            value, index = self.value(index, (*path, len(data)))
            data.append(value)
            index = self._next(index)
        return data, index + 1

    def _next(self, index: int) -> int:
        index = _skip(self._text, index)
        return _skip(self._text, index + 1) if self._text[index] == "," else index

    def _mark(self, index: int) -> Mark:
        # Indices only grow, so the line is found by going on from the last one.
        while self._line + 1 < len(self._lines) and self._lines[self._line + 1] <= index:
            self._line += 1
        return Mark(self._line + 1, index - self._lines[self._line] + 1)


def _skip(text: str, index: int) -> int:
    match = _BLANK.match(text, index)
    return match.end() if match else index
