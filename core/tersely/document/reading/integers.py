"""Turns ``2.0`` into ``2`` where a schema requires an integer."""

from __future__ import annotations

from collections.abc import Mapping

from tersely.json_value import Json


def whole_numbers(data: Json) -> Json:
    """Return a copy in which every number without a fraction is an integer.

    Args:
        data: plain JSON data in which only integers are meant, such as a block size.
    """
    if isinstance(data, dict):
        return {key: whole_numbers(value) for key, value in data.items()}
    if isinstance(data, list):
        return [whole_numbers(item) for item in data]
    if isinstance(data, float) and data.is_integer():
        return int(data)
    return data


def integers_by_schema(data: Mapping[str, Json], schema: Mapping[str, Json]) -> dict[str, Json]:
    """Return a copy in which the keys that a schema calls integers hold integers.

    Args:
        data: a mapping that fits the schema.
        schema: its JSON Schema; only ``properties`` are looked at.
    """
    properties = schema.get("properties", {})
    return {
        key: whole_numbers(value) if _means_integers(properties.get(key)) else value
        for key, value in data.items()
    }


def _means_integers(schema: Json) -> bool:
    if not isinstance(schema, Mapping):
        return False
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "integer" in kinds:
        return "number" not in kinds
    return "array" in kinds and _means_integers(schema.get("items"))
