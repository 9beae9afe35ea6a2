"""From errors of JSON Schema to findings: what was found, what was expected, what to write."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from tersely.document.messages.describe import describe, legal_strings
from tersely.document.messages.hints import (
    fix_for_type,
    hint_for_pattern,
    hint_for_range,
    hint_for_type,
)
from tersely.document.messages.key_places import about_unknown_key
from tersely.document.messages.names import about_name, catalog_of
from tersely.document.messages.synonyms import (
    advice_for_preset,
    meaning_of_key,
    meaning_of_name,
    meaning_of_value,
)
from tersely.document.messages.wording import join_words, show
from tersely.document.reading.positions import Finding
from tersely.document.schemas.mismatch import Mismatch, is_only_required, meant_branch
from tersely.errors import Fix
from tersely.json_value import Json
from tersely.text import did_you_mean, nearest, unmistakable

Root: TypeAlias = Mapping[str, Json]

_RANGES = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def translate(mismatch: Mismatch, root: Root) -> Iterator[Finding]:
    """Yield the findings that one mismatch amounts to.

    Args:
        mismatch: what the validator refuses.
        root: the schema that was validated against.
    """
    translator = _wrong_key if mismatch.is_key else _TRANSLATORS.get(mismatch.keyword, _value)
    yield from translator(mismatch, root)


def _value(mismatch: Mismatch, root: Root) -> Iterator[Finding]:
    found, schema = show(mismatch.value), mismatch.schema
    if not isinstance(schema, dict):
        yield Finding(mismatch.path, f"found {found}, expected nothing here")
        return
    expected = describe(schema, root)
    if expected == "another value":
        expected = f"a value that meets {mismatch.keyword}: {show(mismatch.rule)}"
    hint, fix = None, None
    if mismatch.keyword in ("type", "pattern"):
        hint = hint_for_type(mismatch.value, schema, path=mismatch.path)
        fix = fix_for_type(mismatch.value, schema, path=mismatch.path)
    elif mismatch.keyword in _RANGES:
        hint = hint_for_range(mismatch.value, schema)
    yield Finding(mismatch.path, f"found {found}, expected {expected}", hint, fix=fix)


def _enum(mismatch: Mismatch, root: Root) -> Iterator[Finding]:
    value, schema = mismatch.value, mismatch.schema
    catalog = catalog_of(schema)
    message, hint = f"found {show(value)}, expected {describe(schema, root)}", None
    meant: Json = meaning_of_value(value, schema)
    if meant is not None:
        hint = f"write {meant}"
    elif mismatch.path[-1:] == ("preset",) and (advice := advice_for_preset(value)):
        hint = advice
    elif isinstance(value, str):
        legal = legal_strings(schema, root)
        hint = did_you_mean(value, legal)
        meant = meaning_of_name(value, legal) or unmistakable(value, legal)
        if catalog is not None:
            message, hint = about_name(value, catalog, names=schema["enum"])
    fix = Fix(mismatch.path, mismatch.path, meant) if meant is not None else None
    yield Finding(mismatch.path, message, hint, fix=fix)


def _unknown_keys(mismatch: Mismatch, root: Root) -> Iterator[Finding]:
    del root
    patterns = list(mismatch.schema.get("patternProperties", {}))
    catalog = catalog_of(mismatch.schema)
    for key in mismatch.unnamed_keys():
        if any(re.search(pattern, key) for pattern in patterns):
            continue
        path = (*mismatch.path, key)
        if catalog is None:
            yield about_unknown_key(path, mismatch.value[key], mismatch.schema)
            continue
        names = list(mismatch.properties)
        message, hint = about_name(key, catalog, names=names)
        meant = unmistakable(key, names)
        fix = Fix(path, (*mismatch.path, meant), keeps_value=True) if meant else None
        yield Finding(path, message, hint, "key", fix=fix)


def _missing_keys(mismatch: Mismatch, root: Root) -> Iterator[Finding]:
    properties = mismatch.properties
    for key in mismatch.rule:
        if key in mismatch.value or _is_misspelled(mismatch, [key]):
            continue
        expected = describe(properties.get(key, {}), root).removesuffix(" (a mapping)")
        hint = f"write {key}: {expected}" if expected != "another value" else None
        yield Finding(mismatch.path, f"missing key {key!r} in {mismatch.title}", hint)


def _is_misspelled(mismatch: Mismatch, keys: list[str]) -> bool:
    """Whether one of the keys is there, misspelled; that it is missing then adds nothing."""
    written, legal = mismatch.unnamed_keys(), frozenset(mismatch.properties)
    near = [nearest(word, mismatch.properties) for word in written]
    meant = [meaning_of_key(word, mismatch.value[word], legal=legal) for word in written]
    return any(key in names for names in near for key in keys) or any(
        meaning is not None and meaning.key in keys for meaning in meant
    )


def _wrong_key(mismatch: Mismatch, root: Root) -> Iterator[Finding]:
    expected = describe(mismatch.schema, root)
    message = f"found the key {show(mismatch.value)}, expected {expected}"
    yield Finding((*mismatch.path, str(mismatch.value)), message, None, "key")


def _excluded(mismatch: Mismatch, root: Root) -> Iterator[Finding]:
    required = mismatch.rule.get("required") if isinstance(mismatch.rule, dict) else None
    if not required or not isinstance(mismatch.value, dict):
        yield from _value(mismatch, root)
        return
    last = [key for key in mismatch.value if key in required][-1]
    others = join_words([repr(key) for key in required if key != last], last="and")
    yield Finding(
        (*mismatch.path, last),
        f"found {last!r} together with {others}, expected only one of them",
        f"remove {last!r} or {others}",
        "key",
    )


def _alternatives(mismatch: Mismatch, root: Root) -> Iterator[Finding]:
    if is_only_required(mismatch):
        yield from _none_of(mismatch)
        return
    branch = meant_branch(mismatch)
    if branch is not None:
        for child in branch:
            yield from translate(child, root)
        return
    value, schema = mismatch.value, mismatch.schema
    if not mismatch.branches:
        yield Finding(mismatch.path, f"found {show(value)}, which fits several alternatives")
        return
    if isinstance(value, str):
        hint = _hint_for_name(value, mismatch, root)
        if mismatch.path[-1:] == ("granularity",):
            hint = hint_for_pattern(value) or hint
    else:
        hint = hint_for_type(value, schema, path=mismatch.path)
    meant = _meant_name(value, mismatch, root)
    fix = Fix(mismatch.path, mismatch.path, meant) if meant is not None else None
    expected = describe(schema, root)
    yield Finding(mismatch.path, f"found {show(value)}, expected {expected}", hint, fix=fix)


def _meant_name(value: Json, mismatch: Mismatch, root: Root) -> str | None:
    if not isinstance(value, str):
        return None
    legal = legal_strings(mismatch.schema, root)
    return meaning_of_name(value, legal) or unmistakable(value, legal)


def _hint_for_name(value: str, mismatch: Mismatch, root: Root) -> str | None:
    for branch in mismatch.rule:
        catalog = catalog_of(branch) if isinstance(branch, dict) else None
        if catalog is not None:
            names = legal_strings(branch, root)
            return about_name(value, catalog, names=names)[1]
    return did_you_mean(value, legal_strings(mismatch.schema, root))


def _none_of(mismatch: Mismatch) -> Iterator[Finding]:
    keys = [key for branch in mismatch.rule for key in branch["required"]]
    if not isinstance(mismatch.value, dict) or _is_misspelled(mismatch, keys):
        return
    hint = None
    if any(key.startswith("exclude_op") for key in mismatch.value):
        hint = "excludes only remove modules; to select every module, write op_names_re: ['.*']"
    message = f"{mismatch.title} needs at least one of {join_words(keys)}"
    yield Finding(mismatch.path, message, hint)


_TRANSLATORS: dict[str, Callable[[Mismatch, Root], Iterator[Finding]]] = {
    "additionalProperties": _unknown_keys,
    "unevaluatedProperties": _unknown_keys,
    "required": _missing_keys,
    "enum": _enum,
    "not": _excluded,
    "anyOf": _alternatives,
    "oneOf": _alternatives,
}
