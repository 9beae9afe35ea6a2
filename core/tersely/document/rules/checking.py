"""Rules that a JSON Schema cannot say, each a function from a document to its findings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import TypeGuard

from tersely.document.entries import Place, entries_of, levels_of
from tersely.document.migration.legacy import LEGACY_ANY_TYPE, LEGACY_TYPE_HINT
from tersely.document.presets import check_presets
from tersely.document.reading.positions import Finding
from tersely.document.rules.loop import check_loop
from tersely.document.rules.periods import check_periods
from tersely.document.rules.requirements import check_requirements
from tersely.document.rules.shrinking import check_example, check_shrinks
from tersely.document.rules.training import check_training
from tersely.document.schemas.schema import Kind
from tersely.json_value import Json

_PATTERN_KEYS = ("op_names_re", "exclude_op_names_re")
_TYPE_KEYS = ("op_types", "exclude_op_types")
_SAME_TARGET = (("_input_", "_input_0"), ("_output_", "_output_0"))


def check_rules(data: Json, kind: Kind) -> Iterator[Finding]:
    """Yield what is wrong with a document besides its schema.

    Args:
        data: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is.
    """
    for entry in entries_of(data, kind):
        yield from _check_patterns(entry)
        yield from _check_types(entry)
        yield from _check_spellings(entry)
        for level in levels_of(entry):
            yield from _check_bounds(level)
    yield from check_periods(data, kind)
    yield from check_shrinks(data, kind)
    yield from check_requirements(data, kind)
    yield from check_presets(data, kind)
    yield from check_training(data, kind)
    yield from check_loop(data, kind)
    yield from check_example(data, kind)


def _check_patterns(entry: Place) -> Iterator[Finding]:
    for key in _PATTERN_KEYS:
        for index, pattern in enumerate(_strings(entry.data.get(key))):
            reason = _invalid(pattern) if isinstance(pattern, str) else None
            if reason is not None:
                yield Finding(
                    (*entry.path, key, index),
                    f"{pattern!r} is not a regular expression: {reason}",
                    "put a backslash before characters that are meant literally",
                )


def _invalid(pattern: str) -> str | None:
    try:
        with warnings.catch_warnings():
            # Python warns of patterns whose meaning may change; that is not this document's error.
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, OverflowError) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return None


def _check_types(entry: Place) -> Iterator[Finding]:
    for key in _TYPE_KEYS:
        for index, name in enumerate(_strings(entry.data.get(key))):
            if name == LEGACY_ANY_TYPE:
                yield Finding(
                    (*entry.path, key, index),
                    f"{name!r} stands for every layer with weights in NNI 1.x/2.x only",
                    LEGACY_TYPE_HINT,
                )


def _check_spellings(entry: Place) -> Iterator[Finding]:
    settings = entry.data.get("target_settings")
    for names in _SAME_TARGET:
        if isinstance(settings, dict) and all(name in settings for name in names):
            first, second = (name for name in settings if name in names)
            yield Finding(
                (*entry.path, "target_settings", second),
                f"{second!r} and {first!r} are the same target, expected one of them",
                "put all of its keys under one name",
                "key",
            )


def _check_bounds(level: Place) -> Iterator[Finding]:
    low, high = level.data.get("min_sparse_ratio"), level.data.get("max_sparse_ratio")
    if _is_number(low) and _is_number(high) and low > high:
        yield Finding(
            (*level.path, "min_sparse_ratio"),
            f"min_sparse_ratio {low} is larger than max_sparse_ratio {high}",
            "the smallest share comes first: min_sparse_ratio <= max_sparse_ratio",
        )


def _strings(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _is_number(value: Json) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
