"""What a schema cannot tell apart: numbers between its bounds, and text that it does not name.

A schema looks at values through its keywords alone, so of each kind there are few classes::

    schema                              classes of what it is asked about
    {minimum: 0, maximum: 1}            numbers below 0, 0, numbers between, 1, numbers above
    {enum: [int8, int4]}                int8, int4, all other text
    {properties: {a: ..., b: ...}}      keys a and b, all other keys
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Hashable, Iterator

from tersely.json_value import Json

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LENGTHS = ("minLength", "maxLength")
_LISTS = ("enum", "const", "required")
_KEYED = ("properties", "dependentRequired", "dependentSchemas")


class ValueClasses:
    """The classes of values that a schema tells apart, and perhaps more of them than it does.

    Args:
        schema: a JSON Schema, with everything that it refers to.
    """

    def __init__(self, schema: Json) -> None:
        self._texts: set[str] = set()
        patterns: set[str] = set()
        bounds: set[float] = set()
        lengths: set[int] = set()
        self._has_steps = self._has_unique_items = False
        for keyword, rule in _keywords(schema):
            if keyword in _LISTS or keyword in _KEYED:
                for value in _scalars(rule):
                    if isinstance(value, str):
                        self._texts.add(value)
                    elif _is_number(value):
                        bounds.add(value)
            elif keyword in _BOUNDS and _is_number(rule):
                bounds.add(rule)
            elif keyword in _LENGTHS and _is_number(rule):
                lengths.add(rule)
            elif keyword == "pattern" and isinstance(rule, str):
                patterns.add(rule)
            elif keyword == "patternProperties" and isinstance(rule, dict):
                patterns.update(rule)
            elif keyword == "multipleOf":
                self._has_steps = True
            elif keyword == "uniqueItems":
                self._has_unique_items = True
        self._bounds, self._lengths = sorted(bounds), sorted(lengths)
        self._patterns: list[re.Pattern[str]] | None
        try:
            self._patterns = [re.compile(pattern) for pattern in sorted(patterns)]
        except re.error:  # of a plugin; reported where it is used
            self._patterns = None

    def of(self, value: Json) -> Hashable:
        """Return the class of a value; those of one class fit the schema alike.

        Args:
            value: plain JSON data.
        """
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return tuple([(self._text(key), self.of(item)) for key, item in value.items()])
        if isinstance(value, list):
            classes = json.dumps(value) if self._has_unique_items else tuple(map(self.of, value))
            return list, classes
        if self._has_steps or not _is_number(value):
            return type(value), value
        position = bisect_left(self._bounds, value)
        is_bound = position < len(self._bounds) and self._bounds[position] == value
        return type(value), value == int(value), position, is_bound

    def _text(self, text: str) -> Hashable:
        if text in self._texts or self._patterns is None:
            return text
        matching = [pattern.search(text) is not None for pattern in self._patterns]
        return bisect_left(self._lengths, len(text)), len(text) in self._lengths, *matching


def _keywords(schema: Json) -> Iterator[tuple[str, Json]]:
    # What looks like a keyword and is the name of a property makes classes finer than need be.
    if isinstance(schema, dict):
        for keyword, rule in schema.items():
            yield keyword, rule
            yield from _keywords(rule)
    elif isinstance(schema, list):
        for one in schema:
            yield from _keywords(one)


def _scalars(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _scalars(item)
    elif isinstance(value, list):
        for item in value:
            yield from _scalars(item)
    else:
        yield value


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
