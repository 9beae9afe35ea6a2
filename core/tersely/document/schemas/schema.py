"""The composed JSON Schemas of recipes, jobs and config lists, rebuilt when plugins change."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from tersely.document.schemas.compose import compose, reachable
from tersely.document.schemas.value_classes import ValueClasses
from tersely.json_value import Json
from tersely.registry.registry import Registry, registry

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

Kind: TypeAlias = Literal["recipe", "job", "pruning", "quantization", "distillation"]
"""What a document is; the name of a method means a bare config list of that method."""

KINDS: tuple[Kind, ...] = ("recipe", "job", "pruning", "quantization", "distillation")

_Key: TypeAlias = tuple[Registry, int, Kind]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_lock = threading.Lock()
_schemas: dict[_Key, dict[str, Json]] = {}
_validators: dict[_Key, Draft202012Validator] = {}
_value_classes: dict[_Key, ValueClasses] = {}


def schema(kind: Kind = "recipe") -> dict[str, Json]:
    """Return the JSON Schema of a document, with the options of every installed plugin.

    Args:
        kind: ``recipe``, ``job``, or a method for a bare config list of it.

    Returns:
        A self-contained JSON Schema (2020-12); the caller's to change.

    Raises:
        ValueError: there is no such kind of document.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    return copy.deepcopy(composed_schema(kind))


def composed_schema(kind: Kind) -> dict[str, Json]:
    """Return the schema that `schema` copies; shared, so it must not be changed.

    Args:
        kind: which document.
    """
    key = _key(kind)
    with _lock:
        if key not in _schemas:
            _forget_older(key)
            _schemas[key] = _build(kind)
        return _schemas[key]


def validator(kind: Kind) -> Draft202012Validator:
    """Return the validator of a document, made once for each state of the registry.

    Args:
        kind: which document.
    """
    key = _key(kind)
    if key not in _validators:
        _validators[key] = offline_validator(composed_schema(kind))
    return _validators[key]


def value_classes(kind: Kind) -> ValueClasses:
    """Return what the schema of a document tells apart, found once for each state of the registry.

    Args:
        kind: which document.
    """
    key = _key(kind)
    if key not in _value_classes:
        _value_classes[key] = ValueClasses(composed_schema(kind))
    return _value_classes[key]


def offline_validator(
    schema: Mapping[str, Json], *, has_whole_floats: bool = True
) -> Draft202012Validator:
    """Return a validator whose references never reach the network.

    Args:
        schema: a JSON Schema, possibly a plugin's.
        has_whole_floats: whether 2.0 is an integer, as JSON Schema has it; Python counts with
            none.
    """
    # Late: jsonschema takes longer to import than the rest of `import tersely`.
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry as SchemaRegistry

    # Its own default would fetch what a reference names.
    empty: SchemaRegistry[Json] = SchemaRegistry()
    if has_whole_floats:
        return Draft202012Validator(schema, registry=empty)
    types = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    strict = extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]  # its stubs have no types
    made: Draft202012Validator = strict(schema, registry=empty)
    return made


def _key(kind: Kind) -> _Key:
    current = registry()
    return current, current.revision, kind


def _forget_older(key: _Key) -> None:
    for cache in (_schemas, _validators, _value_classes):
        for old in [each for each in cache if each[:2] != key[:2]]:
            del cache[old]


def _build(kind: Kind) -> dict[str, Json]:
    name = kind if kind in ("recipe", "job") else f"{kind}_config_list"
    definitions = reachable(compose(registry()), name)
    root = definitions.pop(name)
    if f"#/$defs/{name}" in repr(root) + repr(definitions):
        definitions[name] = root
    return {"$schema": _DIALECT, **root, "$defs": definitions}
