"""Recipes made of choices: every unit at its level, everything else left out."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from tersely.document.entries import PERIODS, Place, stages_in, without_absent
from tersely.document.path import spell_path
from tersely.document.recipe import Recipe, Stage
from tersely.document.rules.periods import periods_of
from tersely.json_value import Json
from tersely.searching.units import Level, Unit, with_level

Choices: TypeAlias = Sequence[tuple[Unit, Level]]
"""Units, each with its level; units that are left out stay as they are."""

_ONLY_TRAINING = ("schedule", "shrink", "hold")
_BY_ENTRY = (
    "preset",
    "for",
    "reduce_range",
    "dependency_groups",
    "fuse_names",
    "exclude_op_names",
    "exclude_op_names_re",
    "exclude_op_types",
)
"""Keys of a stage that its entries state themselves once the plan has resolved them."""


def chosen_at_once(recipe: Recipe, choices: Choices) -> dict[str, Json]:
    """Return a recipe that applies the choices in one step, without training.

    Args:
        recipe: the recipe that the units belong to.
        choices: what was chosen.
    """
    found: dict[str, list[Json]] = {}
    for place, number in _stages(recipe):
        entries = _entries(recipe, choices, number)
        if entries:
            stage = _stage(recipe.stages[number], place.data, entries, _BY_ENTRY + _ONLY_TRAINING)
            found.setdefault(place.method, []).append(stage)
    return dict(found)


def chosen_recipe(
    recipe: Recipe, choices: Choices, *, shrinking: Collection[int] = ()
) -> dict[str, Json]:
    """Return the recipe with the choices in place of what its stages state for their targets.

    Args:
        recipe: the recipe that the units belong to.
        choices: what was chosen.
        shrinking: indices of the pruning stages that end with ``shrink``, unless they belong to a
            period or the recipe already says where it shrinks.
    """
    if any(stage.shrink for stage in recipe.stages):
        shrinking = ()
    document = copy.deepcopy(dict(recipe.document))
    empty: list[tuple[Json, str, int | None]] = []
    for place, number in _stages(recipe):
        *parents, last = place.path
        holder: Json = document
        for key in parents:
            holder = holder[key]
        entries = _entries(recipe, choices, number)
        if entries:
            holder[last] = _stage(recipe.stages[number], holder[last], entries, _BY_ENTRY)
            if number in shrinking and PERIODS not in place.path:
                holder[last]["shrink"] = True
        elif isinstance(last, int):
            empty.append((holder, "", last))
        else:
            empty.append((holder, str(last), None))
    # From the end, so that earlier places stay valid.
    for holder, key, index in reversed(empty):
        del holder[key if index is None else index]
    return _without_empty(document)


def _stages(recipe: Recipe) -> list[tuple[Place, int]]:
    """Return the places in the document of the stages that have units, each with its index."""
    indices = {stage.path: number for number, stage in enumerate(recipe.stages)}
    places = (
        place
        for period in periods_of(without_absent(recipe.document, "recipe"))
        for place in stages_in(period.data, period.path)
    )
    return [(one, indices[spell_path(one.path)]) for one in places if one.method != "distillation"]


def _stage(
    stage: Stage, written: Mapping[str, Json], entries: list[Json], without: Sequence[str]
) -> dict[str, Json]:
    kept = {key: copy.deepcopy(value) for key, value in written.items() if key not in without}
    # The algorithm may come from a preset.
    return {**kept, "algorithm": stage.algorithm, "config_list": entries}


def _entries(recipe: Recipe, choices: Choices, stage: int) -> list[Json]:
    """Return one entry for each group of modules with equal settings."""
    targets: dict[str, dict[str, Json]] = {}
    for unit, level in choices:
        if unit.stage == stage:
            for target in unit.targets:
                targets.setdefault(target.module, {})[target.target] = with_level(target, level)
    fused = _fused(recipe, stage)
    alike: dict[str, dict[str, Json]] = {}
    for module, settings in targets.items():
        key = json.dumps(settings, sort_keys=True)
        entry = alike.setdefault(key, {"op_names": [], **_written(settings)})
        entry["op_names"].append(module)
        if module in fused:
            entry.setdefault("fuse_names", []).extend(fused[module])
    return list(alike.values())


def _written(settings: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    return {
        "target_names": list(settings),
        "target_settings": {name: dict(keys) for name, keys in settings.items()},
    }


def _fused(recipe: Recipe, stage: int) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for names in recipe.stages[stage].folded:
        found.setdefault(names[0], [list(names)])
    return found


def _without_empty(document: dict[str, Json]) -> dict[str, Json]:
    """Return a recipe without lists of stages and periods that are now empty."""
    found = {key: value for key, value in document.items() if value != []}
    periods = found.get("stages")
    if isinstance(periods, list):
        found["stages"] = [
            {key: value for key, value in period.items() if value != []} for period in periods
        ]
    return found
