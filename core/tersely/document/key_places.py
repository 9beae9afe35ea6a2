"""Where each key lives: what to say when a key stands where it is not allowed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import attrs

from tersely.contracts.kinds import Method
from tersely.document.legacy import LEGACY_KEYS
from tersely.document.spec import read_schema
from tersely.document.wording import join_words
from tersely.json_value import Json
from tersely.registry.descriptors import METHODS
from tersely.text import did_you_mean

Level: TypeAlias = Literal[
    "target", "entry", "stage", "align", "schedule", "period", "recipe", "job", "loop"
]

_LISTED_AT_MOST = 20
_OUTWARDS: tuple[Level, ...] = ("target", "entry", "stage", "recipe", "job")
_INSIDE: dict[Level, tuple[Level, ...]] = {
    "recipe": ("period",),
    "target": ("align",),
    "entry": ("align",),
    "stage": ("schedule",),
    "job": ("loop",),
}
_PLACES: dict[Level, str] = {
    "job": "in a job, beside 'recipe'",
    "recipe": "at the top of the recipe",
    "period": "in an item of 'stages'",
    "align": "under 'align'",
    "schedule": "under 'schedule'",
    "loop": "under 'loop'",
}


@attrs.frozen
class Home:
    """One kind of mapping of the specification.

    Attributes:
        level: how far inside the document it stands.
        method: the method it belongs to, or None for those without.
        title: what it is called in messages.
        keys: the keys it allows.
    """

    level: Level
    method: Method | None
    title: str
    keys: frozenset[str]


def about_unknown_key(key: str, schema: Mapping[str, Json]) -> tuple[str, str | None]:
    """Return message and hint for a key that its mapping does not allow.

    Args:
        key: the key as written.
        schema: the schema of the mapping: its ``properties`` and, where it has one, its ``title``.
    """
    title = schema.get("title")
    here = next((home for home in _homes() if home.title == title), None)
    if here is not None and here.level in ("entry", "target") and key in LEGACY_KEYS:
        return f"{key!r} is a key of NNI 1.x/2.x, not of this specification", LEGACY_KEYS[key]
    homes = _preferred(key, here) if here is not None else ()
    if here is not None and homes:
        owners = join_words([home.title for home in homes])
        return f"{key!r} is a key of {owners}, not of {here.title}", _where(homes, here)
    message = f"unknown key {key!r}" + (f" in {title}" if title else "")
    legal = list(schema.get("properties", {}))
    return message, did_you_mean(key, legal) or _list_keys(legal)


@functools.cache
def _homes() -> tuple[Home, ...]:
    entries, recipe, job = (read_schema(name) for name in ("config_list", "recipe", "job"))
    homes = []
    for method in METHODS:
        homes += [
            _home("target", method, entries["$defs"][f"{method}_target"]),
            _home("entry", method, entries["$defs"][f"{method}_entry"]),
            _home("stage", method, recipe["$defs"][f"{method}_stage"]),
        ]
    return (
        *homes,
        _home("align", "pruning", entries["$defs"]["align"]),
        _home("schedule", "pruning", recipe["$defs"]["schedule"]),
        _home("period", None, recipe["$defs"]["period"]),
        _home("recipe", None, recipe),
        _home("job", None, job),
        _home("loop", None, job["$defs"]["loop"]),
    )


def _home(level: Level, method: Method | None, schema: Mapping[str, Json]) -> Home:
    return Home(level, method, schema["title"], frozenset(schema["properties"]))


def _preferred(key: str, here: Home) -> tuple[Home, ...]:
    """The homes of a key: of the same method if there are any, and then the nearest level."""
    # Alignments and schedules are for pruning only.
    inside = _INSIDE.get(here.level, ()) if here.method in ("pruning", None) else ()
    allowed = (*_OUTWARDS, *inside)
    homes = [home for home in _homes() if key in home.keys and home.level in allowed]
    own = [home for home in homes if home.method in (None, here.method)]
    for level in (*inside, *_nearest_levels(here.level)):
        for group in (own, homes):
            found = tuple(home for home in group if home.level == level)
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


def _where(homes: Sequence[Home], here: Home) -> str:
    level = homes[0].level
    if level in _PLACES:
        return f"write it {_PLACES[level]}"
    is_own = any(home.method == here.method for home in homes)
    if is_own and level == "stage":
        return "write it in the stage, beside 'config_list'"
    if is_own and level == "entry" and here.level != "stage":
        return "write it in the entry, beside 'target_settings'"
    if is_own:
        return "write it in an entry of 'config_list'"
    methods = join_words([repr(home.method) for home in homes])
    place = "in an entry under" if level in ("entry", "target") else "under"
    return f"write it {place} {methods}"


def _list_keys(legal: Sequence[str]) -> str:
    if not legal:
        return "no keys are allowed here"
    more = len(legal) - _LISTED_AT_MOST
    listed = ", ".join(legal[:_LISTED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
    return f"the only key is {listed}" if len(legal) == 1 else f"the keys are {listed}"
