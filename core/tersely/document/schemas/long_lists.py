"""Long config lists are checked by what differs: entries that a schema cannot tell apart, once.

A schema looks at each entry for itself. So of entries of one class, one stands for all, and what is
wrong with it is wrong with each of them, at the same place and with its own value::

    entries                                               kept      groups
    [{op_names: [a], r: 2}, {op_names: [b], r: 3}, {}]    [0, 2]    {(): [[0, 1], [2]]}
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import attrs

from tersely.document.entries import EXCLUDES, PERIODS, SELECTORS, recipe_of, recipe_path
from tersely.document.path import Path
from tersely.document.schemas.mismatch import Mismatch, mismatch_of
from tersely.document.schemas.schema import Kind, validator, value_classes
from tersely.document.schemas.value_classes import ValueClasses
from tersely.json_value import Json
from tersely.registry.descriptors import METHODS

_Groups: TypeAlias = "Sequence[Sequence[int]]"
"""For each entry of a config list that is kept, the indices of those it represents."""

_NAMES = frozenset((*SELECTORS, *EXCLUDES))
_FEW = 100
"""Shorter config lists are checked as they are."""


def mismatches_of(data: Json, kind: Kind) -> Iterator[Mismatch]:
    """Yield what a document's schema refuses, having checked entries that are alike only once.

    Args:
        data: plain JSON data; need not fit the schema.
        kind: what the document is.
    """
    classes = value_classes(kind)
    misnamed: dict[Path, set[int]] = {}

    def by_kinds_of_names(entries: list[Json], path: Path) -> _Groups:
        del path
        if len(entries) < _FEW:
            return [[index] for index in range(len(entries))]
        return _grouped(entries, range(len(entries)), lambda entry: _by_kinds(entry, classes))

    def by_each_name(entries: list[Json], path: Path) -> _Groups:
        return _grouped(entries, sorted(misnamed.get(path, ())), classes.of)

    for found in _checked(data, kind, by_kinds_of_names):
        if found.is_in_names and len(found.group) > 1:
            # Which of the names is wrong differs from one entry to the next.
            misnamed.setdefault(found.path, set()).update(found.group)
        else:
            yield from found.each()
    for found in _checked(data, kind, by_each_name) if misnamed else ():
        if found.is_in_names:
            yield from found.each()


@attrs.frozen(eq=False)
class _Found:
    """What is wrong with an entry and all that it represents, or with something else.

    Attributes:
        mismatch: what is wrong, in the shortened document.
        path: the path of the config list; empty for something else.
        entries: the whole config list; empty for something else.
        group: the indices of the entry and of those it represents; empty for something else.
    """

    mismatch: Mismatch
    path: Path = ()
    entries: Sequence[Json] = ()
    group: Sequence[int] = ()

    @property
    def is_in_names(self) -> bool:
        """Whether it is in the names of a selector."""
        inside = self.mismatch.path[len(self.path) + 1 :]
        return bool(self.group and inside and inside[0] in _NAMES)

    def each(self) -> Iterator[Mismatch]:
        """Yield it of each entry, in the whole document."""
        if not self.group:
            yield self.mismatch
        around = len(self.path) + 1
        for index in self.group:
            yield self.mismatch.moved(
                around, (*self.path, index), self.entries[self.group[0]], self.entries[index]
            )


def _checked(
    data: Json, kind: Kind, group: Callable[[list[Json], Path], _Groups]
) -> Iterator[_Found]:
    """Yield what is wrong with a document in which one entry of each group is kept."""
    lists: dict[Path, list[Json]] = {}
    groups: dict[Path, _Groups] = {}

    def shortened(entries: list[Json], path: Path) -> list[Json]:
        lists[path], groups[path] = entries, group(entries, path)
        return [entries[indices[0]] for indices in groups[path]]

    shorter = _each_list(data, kind, shortened)
    for error in validator(kind).iter_errors(shorter):
        mismatch = mismatch_of(error)
        for length, index in enumerate(mismatch.path):
            path = mismatch.path[:length]
            if path in groups and isinstance(index, int):
                yield _Found(mismatch, path, lists[path], groups[path][index])
                break
        else:
            yield _Found(mismatch)


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


def _grouped(
    entries: list[Json], indices: Iterable[int], class_of: Callable[[Json], Hashable]
) -> _Groups:
    found: dict[Hashable, list[int]] = {}
    for index in indices:
        found.setdefault(class_of(entries[index]), []).append(index)
    return list(found.values())


def _by_kinds(entry: Json, classes: ValueClasses) -> Hashable:
    """Return the class of an entry, whatever the number and the order of its names."""
    if not isinstance(entry, dict):
        return classes.of(entry)
    return tuple(
        [
            (key, frozenset(map(classes.of, value)))
            if key in _NAMES and isinstance(value, list)
            else (classes.of(key), classes.of(value))
            for key, value in entry.items()
        ]
    )
