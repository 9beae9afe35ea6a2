"""Finds the stages and entries of a document, and takes out what counts as absent."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from tersely.contracts.kinds import Method
from tersely.document.path import Path
from tersely.document.schemas.schema import Kind
from tersely.json_value import Json
from tersely.registry.descriptors import METHODS

SELECTORS = ("op_names", "op_names_re", "op_types")
EXCLUDES = ("exclude_op_names", "exclude_op_names_re", "exclude_op_types")
PERIODS = "stages"
"""The key of a recipe whose items follow one another in time."""

COMMON_KEYS = (*SELECTORS, *EXCLUDES, "target_names", "target_settings")
_ABSENT_WHEN_EMPTY = (*SELECTORS, *EXCLUDES, "target_names", "fuse_names")


@attrs.frozen
class Place:
    """A stage or an entry, and its place.

    Attributes:
        method: the method it belongs to.
        path: where it is in the document.
        data: the mapping itself.
    """

    method: Method
    path: Path
    data: dict[str, Json]


def without_absent(data: Json, kind: Kind) -> Json:
    """Return a copy without what counts as absent: nulls, and empty lists of names.

    Args:
        data: plain JSON data.
        kind: what the document is.
    """
    data = _without_nulls(data)
    for entry in (*entries_of(data, kind), *stages_of(data, kind)):
        for key in _ABSENT_WHEN_EMPTY:
            if entry.data.get(key) == []:
                del entry.data[key]
    return data


def recipe_path(kind: Kind) -> Path:
    """Return the path of the recipe in a document of a kind."""
    return ("recipe",) if kind == "job" else ()


def recipe_of(data: Json, kind: Kind) -> dict[str, Json]:
    """Return the recipe that a document is or holds; empty where there is none.

    Args:
        data: plain JSON data; need not fit the schema.
        kind: what the document is.
    """
    if kind not in ("recipe", "job"):
        return {}
    for key in recipe_path(kind):
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def holder_of(job: Json, recipe: Json) -> tuple[Json, Kind]:
    """Return the document that holds a job's recipe, and its kind.

    Args:
        job: the job.
        recipe: the recipe of a file that the job names, or None for the one inside it.
    """
    return (job, "job") if recipe is None else (recipe, "recipe")


def stages_of(data: Json, kind: Kind) -> Iterator[Place]:
    """Yield the stages of a recipe or of the recipe inside a job, those in periods included.

    Args:
        data: plain JSON data; anything that should be a mapping but is not is skipped.
        kind: what the document is.
    """
    recipe, path = recipe_of(data, kind), recipe_path(kind)
    yield from stages_in(recipe, path)
    periods = recipe.get(PERIODS)
    for index, period in enumerate(periods if isinstance(periods, list) else []):
        yield from stages_in(period, (*path, PERIODS, index))


def stages_in(data: Json, path: Path) -> Iterator[Place]:
    """Yield the stages directly inside a recipe or one of its periods.

    Args:
        data: plain JSON data; need not be a mapping.
        path: its place in the document.
    """
    for method in METHODS:
        stages = data.get(method) if isinstance(data, dict) else None
        if isinstance(stages, dict):
            yield Place(method, (*path, method), stages)
        elif isinstance(stages, list):
            for index, stage in enumerate(stages):
                if isinstance(stage, dict):
                    yield Place(method, (*path, method, index), stage)


def entries_of(data: Json, kind: Kind) -> Iterator[Place]:
    """Yield the entries of every config list in a document.

    Args:
        data: plain JSON data; anything that should be a mapping but is not is skipped.
        kind: what the document is.
    """
    if kind in METHODS:
        yield from _entries(kind, (), data)
    for stage in stages_of(data, kind):
        path = (*stage.path, "config_list")
        yield from _entries(stage.method, path, stage.data.get("config_list"))


def levels_of(entry: Place) -> Iterator[Place]:
    """Yield an entry and the settings of its targets, which take the same keys.

    Args:
        entry: an entry of a config list.
    """
    yield entry
    settings = entry.data.get("target_settings")
    for name, setting in settings.items() if isinstance(settings, dict) else ():
        if isinstance(setting, dict):
            yield Place(entry.method, (*entry.path, "target_settings", name), setting)


def _entries(method: Method, path: Path, config_list: Json) -> Iterator[Place]:
    for index, entry in enumerate(config_list if isinstance(config_list, list) else []):
        if isinstance(entry, dict):
            yield Place(method, (*path, index), entry)


def _without_nulls(data: Json) -> Json:
    # Most values are neither mappings nor lists, and cost no call.
    if isinstance(data, dict):
        return {
            key: _without_nulls(value) if isinstance(value, (dict, list)) else value
            for key, value in data.items()
            if value is not None
        }
    if isinstance(data, list):
        return [_without_nulls(item) if isinstance(item, (dict, list)) else item for item in data]
    return data
