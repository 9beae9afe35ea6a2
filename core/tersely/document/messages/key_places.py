"""Where each key belongs: what to say when a key is not allowed in its place."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import attrs

from tersely.contracts.kinds import Method
from tersely.document.messages.synonyms import Meaning, meaning_of_key
from tersely.document.messages.wording import join_words, show
from tersely.document.migration.legacy import LEGACY_KEYS
from tersely.document.path import Path
from tersely.document.reading.positions import Finding
from tersely.document.schemas.spec import read_schema
from tersely.errors import Fix
from tersely.json_value import Json
from tersely.registry.descriptors import METHODS
from tersely.text import did_you_mean, unmistakable

Level: TypeAlias = Literal[
    "target",
    "entry",
    "stage",
    "align",
    "schedule",
    "period",
    "recipe",
    "job",
    "loop",
    "benchmark",
    "observer",
]

_LISTED_AT_MOST = 20
_OUTWARDS: tuple[Level, ...] = ("target", "entry", "stage", "recipe", "job")
_INSIDE: dict[Level, tuple[Level, ...]] = {
    "recipe": ("period",),
    "target": ("align",),
    "entry": ("align",),
    "stage": ("schedule",),
    "job": ("loop", "benchmark", "observer"),
}
_BELOW: dict[Level, Level] = {"stage": "entry", "job": "loop"}
_PLACES: dict[Level, str] = {
    "job": "in a job, next to 'recipe'",
    "recipe": "at the top of the recipe",
    "period": "in an item of 'stages'",
    "align": "under 'align'",
    "schedule": "under 'schedule'",
    "loop": "under 'loop'",
    "benchmark": "under 'benchmark'",
    "observer": "in an item of 'observers'",
}


@attrs.frozen
class KeyPlace:
    """One kind of mapping of the specification.

    Attributes:
        level: how deep inside the document it is.
        method: the method it belongs to, or None for those without.
        title: what it is called in messages.
        keys: the keys it allows.
    """

    level: Level
    method: Method | None
    title: str
    keys: frozenset[str]


def about_unknown_key(path: Path, value: Json, schema: Mapping[str, Json]) -> Finding:
    """Return what is wrong with a key that its mapping does not allow.

    Args:
        path: the place of the key.
        value: its value.
        schema: the schema of the mapping: its ``properties`` and, where it has one, its ``title``.
    """
    key, title = str(path[-1]), schema.get("title")
    legal = list(schema.get("properties", {}))
    here = _titled().get(str(title))
    meaning = meaning_of_key(key, value, legal=frozenset(legal))
    fix = None
    if meaning is not None and meaning.key is not None:
        fix = Fix(path, (*path[:-1], meaning.key), meaning.value, meaning.value == value)
    if here is not None and here.level in ("entry", "target") and key in LEGACY_KEYS:
        message = f"{key!r} is a key of NNI 1.x/2.x, not of this specification"
        return Finding(path, message, LEGACY_KEYS[key], "key", fix=fix)
    places = _preferred(key, here) if here is not None else ()
    if here is not None and places:
        owners = join_words([place.title for place in places])
        message = f"{key!r} is a key of {owners}, not of {here.title}"
        if key == "algorithm" and here.method == "distillation" and isinstance(value, str):
            hint = f"a loss is written in each entry: apply_method: {value}"
            return Finding(path, message, hint, "key")
        fix = _move(path, places, here)
        return Finding(path, message, _where(places, here), "key", fix=fix)
    message = f"unknown key {key!r}" + (f" in {title}" if title else "")
    if meaning is not None:
        hint = meaning.advice or _written(meaning)
        return Finding(path, message, hint, "key", fix=fix)
    meant = unmistakable(key, legal)
    if meant is not None:
        fix = Fix(path, (*path[:-1], meant), keeps_value=True)
    inside = None if here is None else _meant_inside(key, value, here)
    hint = did_you_mean(key, legal) or inside or _list_keys(legal)
    return Finding(path, message, hint, "key", fix=fix)


def _meant_inside(key: str, value: Json, here: KeyPlace) -> str | None:
    """Return what a word of the field is written as one level further inside, or None."""
    below = _BELOW.get(here.level)
    for place in _places() if below is not None else ():
        if place.level == below and place.method in (None, here.method):
            meaning = meaning_of_key(key, value, legal=place.keys)
            if meaning is not None and meaning.key is not None:
                return f"{_written(meaning)}, {_where([place], here).removeprefix('write it ')}"
    return None


def _written(meaning: Meaning) -> str:
    spelled = meaning.value if isinstance(meaning.value, str) else show(meaning.value)
    return f"write {meaning.key}: {spelled}"


def _move(path: Path, places: Sequence[KeyPlace], here: KeyPlace) -> Fix | None:
    """Return how a key moves outwards to the one mapping around it that allows it."""
    if len(places) != 1 or places[0].method not in (None, here.method):
        return None
    inside = {"target": "target_settings", "entry": "config_list", "stage": here.method}
    holder, level = path[:-1], here.level
    while level != places[0].level:
        key = "recipe" if level == "recipe" else inside.get(level)
        if key not in holder:
            return None
        holder, level = holder[: holder.index(key)], _OUTWARDS[_OUTWARDS.index(level) + 1]
    return Fix(path, (*holder, path[-1]), keeps_value=True)


@functools.cache
def _places() -> tuple[KeyPlace, ...]:
    entries, recipe, job = (read_schema(name) for name in ("config_list", "recipe", "job"))
    places = []
    for method in METHODS:
        places += [
            _place("target", method, entries["$defs"][f"{method}_target"]),
            _place("entry", method, entries["$defs"][f"{method}_entry"]),
            _place("stage", method, recipe["$defs"][f"{method}_stage"]),
        ]
    return (
        *places,
        _place("align", "pruning", entries["$defs"]["align"]),
        _place("schedule", "pruning", recipe["$defs"]["schedule"]),
        _place("period", None, recipe["$defs"]["period"]),
        _place("recipe", None, recipe),
        _place("job", None, job),
        _place("loop", None, job["$defs"]["loop"]),
        _place("benchmark", None, job["$defs"]["benchmark"]),
        _place("observer", None, job["$defs"]["observer"]),
    )


@functools.cache
def _titled() -> dict[str, KeyPlace]:
    return {place.title: place for place in reversed(_places())}


@functools.cache
def _owners() -> dict[str, tuple[KeyPlace, ...]]:
    """Key -> the places that allow it."""
    keys = {key for place in _places() for key in place.keys}
    return {key: tuple(place for place in _places() if key in place.keys) for key in keys}


def _place(level: Level, method: Method | None, schema: Mapping[str, Json]) -> KeyPlace:
    return KeyPlace(level, method, schema["title"], frozenset(schema["properties"]))


def _preferred(key: str, here: KeyPlace) -> tuple[KeyPlace, ...]:
    """The places of a key: of the same method if there are any, and then the nearest level."""
    if key not in _owners():
        return ()
    # Alignments and schedules are for pruning only.
    inside = _INSIDE.get(here.level, ()) if here.method in ("pruning", None) else ()
    allowed = (*_OUTWARDS, *inside)
    places = [place for place in _owners()[key] if place.level in allowed]
    own = [place for place in places if place.method in (None, here.method)]
    for level in (*inside, *_nearest_levels(here.level)):
        for group in (own, places):
            found = tuple(place for place in group if place.level == level)
            if found:
                return found
    return ()


def _nearest_levels(level: Level) -> Sequence[Level]:
    if level == "loop":
        return ("job",)
    if level not in _OUTWARDS:
        return _OUTWARDS[1:]
    index = _OUTWARDS.index(level)
    # The same level of another method first; then outwards; then inwards.
    return [*_OUTWARDS[index:], *reversed(_OUTWARDS[1:index])]


def _where(places: Sequence[KeyPlace], here: KeyPlace) -> str:
    level = places[0].level
    if level in _PLACES:
        return f"write it {_PLACES[level]}"
    is_own = any(place.method == here.method for place in places)
    if is_own and level == "stage":
        return "write it in the stage, next to 'config_list'"
    if is_own and level == "entry" and here.level != "stage":
        return "write it in the entry, next to 'target_settings'"
    if is_own:
        return "write it in an entry of 'config_list'"
    methods = join_words([repr(place.method) for place in places])
    place = "in an entry under" if level in ("entry", "target") else "under"
    return f"write it {place} {methods}"


def _list_keys(legal: Sequence[str]) -> str:
    if not legal:
        return "no keys are allowed here"
    more = len(legal) - _LISTED_AT_MOST
    listed = ", ".join(legal[:_LISTED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
    return f"the only key is {listed}" if len(legal) == 1 else f"the keys are {listed}"
