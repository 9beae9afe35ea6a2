"""What to write instead of a value of the wrong type or size."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from tersely.document.path import Path
from tersely.errors import Fix
from tersely.json_value import Json
from tersely.registry.descriptors import METHODS

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)\s*\Z")
_COMMA = re.compile(r"\s*([-+]?\d+),(\d+)\s*\Z")
_PATTERN = re.compile(r"\s*(\d+)\s*(?:[-/]|of|out of)\s*(\d+)\s*\Z")
_LEAST_PERCENT, _MOST_PERCENT = 2, 100
_PYTHON = {"string": str, "integer": int}
_WORDS = {"boolean": ("true", "false"), "null": ("null",)}
_OLD_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
"""What was a boolean in YAML 1.1 -> what is one in YAML 1.2, which reads the others as text."""


def hint_for_type(value: Json, schema: Mapping[str, Json], *, path: Path = ()) -> str | None:
    """Return what to write instead of a value of another type, or None.

    Args:
        value: what was found.
        schema: the schema it does not fit.
        path: its place in the document.
    """
    kinds = _kinds(schema)
    if isinstance(value, str):
        hint = (
            _named(value, kinds, schema)
            or _aligned(value, schema)
            or _referenced(value, schema)
            or _without_quotes(value, kinds)
            or _boolean(value, kinds)
            or _with_point(value, kinds)
        )
        if hint is not None:
            return hint
    if value is True and kinds[:1] == ["object"] and not schema.get("required"):
        return "write {} to use the defaults"
    if (hint := _unwrapped(value, kinds) or _in_quotes(value, kinds, schema)) is not None:
        return hint
    if "array" in kinds and "object" not in kinds and schema.get("minItems", 0) <= 1:
        return _listed(value, schema.get("items"), path)
    if isinstance(value, list) and not path and schema.get("title") == "a recipe":
        places = ", ".join(METHODS)
        return f"a config list belongs in a stage, under config_list in one of {places}"
    return None


def fix_for_type(value: Json, schema: Mapping[str, Json], *, path: Path) -> Fix | None:
    """Return the one value that was meant by a value of another type, or None.

    Args:
        value: what was found.
        schema: the schema it does not fit.
        path: its place in the document.
    """
    kinds, items = _kinds(schema), schema.get("items")
    text = value.strip() if isinstance(value, str) else ""
    match = _NUMBER.match(text)
    if match and "number" in kinds:
        number = json.loads(_share(float(match[1]))) if match[2] else _number(match[1])
        return Fix(path, path, number)
    if match and "integer" in kinds and match[1].lstrip("-+").isdigit():
        return Fix(path, path, int(match[1]))
    word = _OLD_WORDS.get(text.lower(), text.lower())
    for kind, words in _WORDS.items():
        if kind in kinds and word in words:
            return Fix(path, path, json.loads(word))
    item = items.get("type") if isinstance(items, dict) else None
    if isinstance(value, str) and _named(value, kinds, schema):
        return Fix(path, path, {schema["required"][0]: value})
    takes_one = "array" in kinds and schema.get("minItems", 0) <= 1
    if takes_one and isinstance(item, str) and type(value) is _PYTHON.get(item):
        return Fix(path, path, [value])
    return None


def hint_for_range(value: Json, schema: Mapping[str, Json]) -> str | None:
    """Return what to write instead of a number outside its range, or None.

    Args:
        value: what was found.
        schema: the schema with the range.
    """
    is_share = schema.get("minimum") == 0 and schema.get("maximum") == 1
    if is_share and _LEAST_PERCENT <= value <= _MOST_PERCENT:
        return f"for {value} percent write {_share(value)}"
    return None


def _kinds(schema: Mapping[str, Json]) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _listed(value: Json, items: Json, path: Path) -> str | None:
    """Return the list that a single item means."""
    kind = items.get("type") if isinstance(items, dict) else None
    if isinstance(value, dict):
        return "write a list: begin the mapping with '- '"
    if isinstance(value, str) and kind == "string":
        return f"write a list: [{value}]"
    if isinstance(value, int) and kind == "integer":
        return f"write a list: [{json.dumps(value)}]"
    if isinstance(value, str) and path[-1:] == ("export",):
        return f"write a list: [{{format: {value}}}]"
    return None


def _named(value: str, kinds: list[str], schema: Mapping[str, Json]) -> str | None:
    """Return the mapping that a name alone, or the name of a format, means."""
    if kinds[:1] != ["object"] or schema.get("required") not in (["name"], ["format"]):
        return None
    return f"write a mapping: {{{schema['required'][0]}: {value}}}"


def _unwrapped(value: Json, kinds: list[str]) -> str | None:
    """Return the only number in a list."""
    if not isinstance(value, list) or len(value) != 1 or isinstance(value[0], bool):
        return None
    is_number = isinstance(value[0], int | float) and "number" in kinds
    is_integer = isinstance(value[0], int) and "integer" in kinds
    return f"write {json.dumps(value[0])} without brackets" if is_number or is_integer else None


def _in_quotes(value: Json, kinds: list[str], schema: Mapping[str, Json]) -> str | None:
    """Return the text that a number means where any text is legal."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or kinds != ["string"] or "pattern" in schema or "enum" in schema:
        return None
    return f"write '{json.dumps(value)}' in quotes"


def _aligned(value: str, schema: Mapping[str, Json]) -> str | None:
    """Return the alignment with a target or a module whose name alone was written."""
    if schema.get("required") != ["target_name", "dims"]:
        return None
    is_target = value in ("weight", "bias")
    named = f"target_name: {value}" if is_target else f"module_name: {value}, target_name: weight"
    return f"write a mapping: {{{named}, dims: [0]}}"


def _referenced(value: str, schema: Mapping[str, Json]) -> str | None:
    """Return the reference that a dotted name or the path of a file means."""
    if ":" not in str(schema.get("pattern")):
        return None
    file, colon, name = value.partition(":")
    if colon and file.endswith(".py"):
        module = file.removesuffix(".py").removeprefix("./").replace("/", ".")
    else:
        module, colon, name = value.rpartition(".")
    parts = [*module.split("."), name]
    is_reference = colon and name != "py" and all(part.isidentifier() for part in parts)
    return f"write {module}:{name}" if is_reference else None


def _without_quotes(value: str, kinds: list[str]) -> str | None:
    match = _NUMBER.match(value)
    if match and ("number" in kinds or "integer" in kinds):
        number = match[1]
        if match[2]:
            return f"write {_share(float(number))}" if "number" in kinds else None
        return f"write {number} without quotes"
    for kind, words in _WORDS.items():
        if kind in kinds and value.lower() in words:
            return f"write {value.lower()} without quotes"
    return None


def _boolean(value: str, kinds: list[str]) -> str | None:
    meant = _OLD_WORDS.get(value.lower())
    return f"write {meant}" if meant is not None and "boolean" in kinds else None


def _with_point(value: str, kinds: list[str]) -> str | None:
    match = _COMMA.match(value)
    return f"write {match[1]}.{match[2]}" if match and "number" in kinds else None


def hint_for_pattern(value: str) -> str | None:
    """Return the granularity that some of so many neighbours are written as, or None.

    Args:
        value: what was written for a granularity.
    """
    match = _PATTERN.match(value)
    return f"write '{match[1]}:{match[2]}'" if match else None


def _number(text: str) -> Json:
    return int(text) if text.lstrip("-+").isdigit() else float(text)


def _share(percent: float) -> str:
    return format(percent / 100, ".12g")
