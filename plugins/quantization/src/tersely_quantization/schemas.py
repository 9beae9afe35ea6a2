"""JSON Schemas of the options that several algorithms of this package share; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BINS = {"enum": [2**power for power in range(7, 15)]}
DECAY = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
LEARNING_RATE = {"type": "number", "exclusiveMinimum": 0}
SEED = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
STEPS = {"type": "integer", "minimum": 0}

OBSERVERS: Mapping[str, Mapping[str, Any]] = {
    "min_max": {},
    "moving_average": {"decay": DECAY},
    "percentile": {
        "percentile": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "bins": BINS,
    },
    "histogram": {"bins": BINS},
    "mse": {"bins": BINS},
}
"""Observer -> option -> its schema."""

DEFAULT_OBSERVER = "min_max"


def options(*required: str, examples: Sequence[Any] = (), **properties: Any) -> Mapping[str, Any]:
    """Return a closed schema of options.

    Args:
        *required: the options that must be given.
        examples: options to try the algorithm with.
        **properties: option -> its schema.
    """
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": list(required), "examples": list(examples)}


def with_observer(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema of options with ``observer`` and ``observer_options`` added.

    Args:
        schema: a closed schema of options.
    """
    added = {"observer": {"enum": list(OBSERVERS)}, "observer_options": {"type": "object"}}
    rules = [_rule(name, taken) for name, taken in OBSERVERS.items()]
    return {
        **schema,
        "properties": {**schema["properties"], **added},
        "allOf": [*schema.get("allOf", ()), *rules],
    }


def _rule(name: str, taken: Mapping[str, Any]) -> Mapping[str, Any]:
    # A missing observer is the default one, so its rule does not require the key.
    is_default = name == DEFAULT_OBSERVER
    is_chosen = {"properties": {"observer": {"const": name}}}
    own = {"type": "object", "properties": dict(taken), "additionalProperties": False}
    return {
        "if": is_chosen if is_default else {**is_chosen, "required": ["observer"]},
        "then": {"properties": {"observer_options": own}},
    }
