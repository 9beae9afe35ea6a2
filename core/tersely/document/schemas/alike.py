"""Long config lists are checked by what differs: entries that are alike but for names, once.

A schema looks at each entry for itself, and in selectors only at the type of each name and at
whether it is empty. So of entries that differ in nothing else, one stands for all::

    entries                                               kept      groups
    [{op_names: [a], r: 1}, {op_names: [b], r: 1}, {}]    [0, 2]    {(): [[0, 1], [2]]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from tersely.document.entries import EXCLUDES, PERIODS, SELECTORS, recipe_of, recipe_path
from tersely.document.path import Path
from tersely.document.reading.positions import Finding
from tersely.document.schemas.schema import Kind
from tersely.json_value import Json
from tersely.registry.descriptors import METHODS

Groups = Mapping[Path, Sequence[Sequence[int]]]
"""Path of a config list -> for each entry that is kept, the indices of those it stands for."""

_NAMES = frozenset((*SELECTORS, *EXCLUDES))
_FEW = 100
"""Shorter config lists are checked as they are."""


def check_by_likeness(
    data: Json, kind: Kind, check: Callable[[Json], Iterator[Finding]]
) -> Iterator[Finding]:
    """Yield what is wrong with a document, having checked entries that are alike only once.

    Args:
        data: plain JSON data; need not fit the schema.
        kind: what the document is.
        check: finds what is wrong with a document of this kind, by its schema.
    """
    groups: dict[Path, Sequence[Sequence[int]]] = {}
    shorter = _each_list(data, kind, lambda entries, path: _one_of_each(entries, path, groups))
    apart: dict[Path, list[Sequence[int]]] = {}
    for finding in check(shorter):
        place = _place(finding.path, groups)
        if place is None:
            yield finding
            continue
        path, index, inside = place
        if inside and inside[0] in _NAMES:
            # Which of the names is wrong differs from one entry to the next.
            apart.setdefault(path, []).append([*groups[path][index]])
            continue
        kept = finding.path[len(path)]
        for each in groups[path][index]:
            yield finding.moved((*path, kept), (*path, each))
    if apart:
        yield from _check_names(data, kind, check, apart)


def _check_names(
    data: Json,
    kind: Kind,
    check: Callable[[Json], Iterator[Finding]],
    apart: Mapping[Path, Sequence[Sequence[int]]],
) -> Iterator[Finding]:
    kept = {path: sorted({each for one in found for each in one}) for path, found in apart.items()}
    shorter = _each_list(
        data,
        kind,
        lambda entries, path: [entries[index] for index in kept[path]] if path in kept else entries,
    )
    groups = {path: [[index] for index in indices] for path, indices in kept.items()}
    for finding in check(shorter):
        place = _place(finding.path, groups)
        if place is not None and place[2] and place[2][0] in _NAMES:
            path, index, _ = place
            yield finding.moved((*path, index), (*path, kept[path][index]))


def _place(path: Path, groups: Groups) -> tuple[Path, int, Path] | None:
    """Split a path at the entry of a shortened config list, or return None for another path."""
    for length in range(len(path)):
        index = path[length]
        if path[:length] in groups and isinstance(index, int):
            return path[:length], index, path[length + 1 :]
    return None


def _each_list(data: Json, kind: Kind, change: Callable[[list[Json], Path], Json]) -> Json:
    """Return a document with its config lists changed; it shares what is not."""
    if kind in METHODS:
        return change(data, ()) if isinstance(data, list) else data
    recipe = recipe_of(data, kind)
    if not recipe:
        return data
    path = recipe_path(kind)
    changed = _each_stage(recipe, path, change)
    periods = recipe.get(PERIODS)
    if isinstance(periods, list):
        changed[PERIODS] = [
            _each_stage(period, (*path, PERIODS, index), change)
            if isinstance(period, dict)
            else period
            for index, period in enumerate(periods)
        ]
    return {**data, "recipe": changed} if path else changed


def _each_stage(
    holder: Mapping[str, Json], path: Path, change: Callable[[list[Json], Path], Json]
) -> dict[str, Json]:
    changed = dict(holder)
    for method in METHODS:
        stages = holder.get(method)
        if isinstance(stages, dict):
            changed[method] = _stage(stages, (*path, method), change)
        elif isinstance(stages, list):
            changed[method] = [
                _stage(stage, (*path, method, index), change) for index, stage in enumerate(stages)
            ]
    return changed


def _stage(stage: Json, path: Path, change: Callable[[list[Json], Path], Json]) -> Json:
    entries = stage.get("config_list") if isinstance(stage, dict) else None
    if not isinstance(entries, list):
        return stage
    return {**stage, "config_list": change(entries, (*path, "config_list"))}


def _one_of_each(
    entries: list[Json], path: Path, groups: dict[Path, Sequence[Sequence[int]]]
) -> list[Json]:
    if len(entries) < _FEW:
        return entries
    found: dict[Hashable, list[int]] = {}
    for index, entry in enumerate(entries):
        found.setdefault(_likeness(entry), []).append(index)
    groups[path] = list(found.values())
    return [entries[indices[0]] for indices in groups[path]]


def _likeness(entry: Json) -> Hashable:
    if not isinstance(entry, dict):
        return json.dumps(entry)
    return tuple(
        (key, _kinds(value) if key in _NAMES and isinstance(value, list) else _plain(value))
        for key, value in entry.items()
    )


def _kinds(names: list[Json]) -> Hashable:
    return frozenset((type(name), not name) for name in names)


def _plain(value: Json) -> Hashable:
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return type(value), value  # 1, 1.0 and True are equal, and not alike
