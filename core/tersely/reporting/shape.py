"""The JSON Schema of a report's data, out of the types of the classes that hold it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from tersely.json_value import Json
from tersely.reporting.measuring.timings import Timing
from tersely.reporting.rows import Layer, Moment, Remark, ReportRow
from tersely.shrinking.report import Absorption, Row, Shrunk, Stay

_STRINGS: Json = {"type": "array", "items": {"type": "string"}}
_TYPES: Mapping[str, Json] = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "tuple[int, ...]": {"type": "array", "items": {"type": "integer"}},
    "None": {"type": "null"},
}


def report_shape() -> dict[str, Json]:
    """Return the JSON Schema of what `Report.from_dict` takes."""
    return {
        "required": [
            "rows", "warnings", "remarks", "metrics", "history", "versions", "model_elements",
        ],
        "properties": {
            "rows": {"type": "array", "items": _shape_of(ReportRow)},
            "warnings": _STRINGS,
            "remarks": {"type": "array", "items": _shape_of(Remark)},
            "metrics": {
                "type": "object",
                "additionalProperties": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            },
            "history": {"type": "array", "items": _shape_of(Moment)},
            "shrinks": {"type": "array", "items": _shrunk_shape()},
            "files": {"type": "object", "additionalProperties": {"type": "integer"}},
            "benchmarks": {"type": "array", "items": _benchmark_shape()},
            "layers": {"type": "array", "items": _shape_of(Layer)},
            "macs": {"type": "object", "additionalProperties": {"type": "integer"}},
            "recipe": {"type": "object"},
            "versions": {"type": "object", "additionalProperties": {"type": "string"}},
            "model_elements": _type_of("int | None"),
        },
    }  # fmt: skip


def _shrunk_shape() -> dict[str, Json]:
    number: Json = {"type": "integer"}
    change: Json = {
        "type": "object",
        "required": ["before", "after"],
        "properties": {"before": number, "after": number},
    }
    counts: dict[str, Json] = dict.fromkeys(("parameters", "macs", "bytes"), change)
    return {
        "type": "object",
        "required": [one.name for one in attrs.fields(Shrunk) if one.default is attrs.NOTHING],
        "additionalProperties": False,
        "properties": {
            "rows": {"type": "array", "items": _shape_of(Row)},
            "stays": {"type": "array", "items": _shape_of(Stay)},
            "absorbed": {"type": "array", "items": _shape_of(Absorption)},
            **counts,
            "modules": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["module", *counts],
                    "additionalProperties": False,
                    "properties": {"module": {"type": "string"}, **counts},
                },
            },
            "error": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "in_float64": {"type": "boolean"},
            "at_other_sizes": {"type": "boolean"},
            "other_in_training": {"type": "array", "items": {"type": "string"}},
        },
    }


def _benchmark_shape() -> dict[str, Json]:
    return {
        "type": "object",
        "required": ["timings", "threads", "rounds"],
        "additionalProperties": False,
        "properties": {
            "timings": {"type": "array", "items": _shape_of(Timing)},
            "threads": {"type": "integer"},
            "rounds": {"type": "integer"},
            "title": {"type": "string"},
        },
    }


def _shape_of(kind: type[attrs.AttrsInstance]) -> dict[str, Json]:
    fields = attrs.fields(kind)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [field.name for field in fields if field.default is attrs.NOTHING],
        "properties": {field.name: _type_of(str(field.type)) for field in fields},
    }


def _type_of(annotation: str) -> Json:
    names = annotation.split(" | ")
    # A closed set of words is text for a reader: another version may know more of them.
    found = [_TYPES[name] if name in _TYPES else _TYPES["str"] for name in names]
    return found[0] if len(found) == 1 else {"anyOf": found}
