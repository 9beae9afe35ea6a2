"""Tells whether the schema of a plugin's options can be used, without a JSON Schema library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from tersely.json_value import Json

_ANCHORS = ("$anchor", "$dynamicAnchor")
_REFERENCES = ("$ref", "$dynamicRef")
_MISSING = object()


def schema_problem(schema: Json) -> str | None:
    """Return why a schema cannot be used wherever it is embedded, or None when it can.

    References have to stay inside the schema and to lead somewhere. Everything else that makes a
    schema illegal shows when a document is validated.

    Args:
        schema: the ``options`` or ``values`` of a descriptor.
    """
    if not isinstance(schema, Mapping):
        return f"it is of type {type(schema).__name__}, expected a mapping"
    for place, node in _nodes(schema, "#"):
        for key in _REFERENCES:
            if key in node:
                reason = _reference_problem(schema, node[key])
                if reason is not None:
                    return f"{place}/{key} {reason}"
    return None


def _nodes(value: Json, place: str) -> Iterator[tuple[str, Mapping[str, Json]]]:
    waiting: list[tuple[str, Json]] = [(place, value)]
    seen: set[int] = set()
    while waiting:
        where, node = waiting.pop()
        if not isinstance(node, Mapping | list | tuple) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            yield where, node
            inner = [(f"{where}/{key}", each) for key, each in node.items()]
        else:
            inner = [(f"{where}/{index}", each) for index, each in enumerate(node)]
        waiting += reversed(inner)


def _reference_problem(schema: Mapping[str, Json], reference: Json) -> str | None:
    seen: list[str] = []
    while True:
        if not isinstance(reference, str):
            return f"is of type {type(reference).__name__}, expected text"
        if not reference.startswith("#"):
            return f"is {reference!r}, which is outside of the schema"
        if reference in seen:
            return f"is {seen[0]!r}, which refers to itself"
        seen.append(reference)
        target = _resolve(schema, reference[1:])
        if target is _MISSING:
            return f"is {reference!r}, which does not exist"
        if not isinstance(target, Mapping) or set(target) != {"$ref"}:
            return None
        reference = target["$ref"]


def _resolve(schema: Mapping[str, Json], fragment: str) -> Json:
    if fragment and not fragment.startswith("/"):
        anchored = (
            node
            for _, node in _nodes(schema, "#")
            if any(node.get(key) == fragment for key in _ANCHORS)
        )
        return next(anchored, _MISSING)
    found: Json = schema
    for part in fragment.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list | tuple) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            return _MISSING
    return found
