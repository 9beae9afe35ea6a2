"""Folding that a stage or an entry leaves to a run of the model (rule Q4.7)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import attrs
from torch import nn

from tersely.document.entries import entries_of, stages_of
from tersely.document.path import spell_path
from tersely.document.recipe import AUTO, Entry, FuseNames, Recipe, Stage
from tersely.errors import PlanError
from tersely.planning.fusing.auto_fusion import fold_chains
from tersely.planning.stages.draft import Draft


def fuse_automatically(draft: Draft, example_inputs: Any) -> None:
    """Write what folds into each quantized module where the recipe says ``fuse_names: auto``.

    The recipe of the draft then has the names, in its stages and in its document, so that a plan
    that is saved or printed folds what was found.

    Args:
        draft: the plan so far; what is wrong is added to its problems.
        example_inputs: what to run the model with, or None.
    """
    asking = [one for stage in draft.recipe.stages for one in _asking(stage)]
    if not asking or draft.problems:
        return
    place = f"{asking[0].path}.fuse_names"
    if example_inputs is None:
        draft.problems.append(
            f"{place}: 'auto' runs the model to see what reads the output of each layer, and there "
            "are no example inputs; give example_inputs to tersely.plan or tersely.attach, "
            "data.example to a job, or --example to tersely plan"
        )
        return
    model: nn.Module = draft.universe.modules[0]
    try:
        chains = fold_chains(model, draft.finish(), draft.universe, example_inputs)
    except PlanError as error:
        draft.problems.extend(f"{place}: {problem}" for problem in error.problems)
        return
    found: dict[str, FuseNames] = {}
    for stage in draft.recipe.stages:
        own = {entry.path: tuple(chains.get(entry.path, ())) for entry in stage.entries}
        for one in _asking(stage):
            found[one.path] = own.pop(one.path) if isinstance(one, Entry) else tuple(
                names for chain in own.values() for names in chain
            )  # fmt: skip
    draft.recipe = _written(draft.recipe, found)
    for path, folds in found.items():
        draft.hints.append(f"{path}.fuse_names: {_said(folds)}")


def _asking(stage: Stage) -> list[Stage | Entry]:
    """Return the parts of a stage that ask for it; entries first, as they choose first."""
    return [one for one in reversed(stage.holders) if one.fuse_names == AUTO]


def _written(recipe: Recipe, found: Mapping[str, FuseNames]) -> Recipe:
    document = copy.deepcopy(dict(recipe.document))
    for place in (*stages_of(document, "recipe"), *entries_of(document, "recipe")):
        names = found.get(spell_path(place.path))
        if names is not None:
            place.data["fuse_names"] = [list(group) for group in names]
    stages = tuple(
        attrs.evolve(
            stage,
            fuse_names=found.get(stage.path, stage.fuse_names),
            entries=tuple(
                attrs.evolve(entry, fuse_names=found.get(entry.path, entry.fuse_names))
                for entry in stage.entries
            ),
        )
        for stage in recipe.stages
    )
    return attrs.evolve(recipe, stages=stages, document=document)


_SHOWN = 3


def _said(folds: FuseNames) -> str:
    if not folds:
        return "'auto' found nothing that folds into a quantized module"
    shown = ", ".join(" + ".join(names) for names in folds[:_SHOWN])
    more = f" and {len(folds) - _SHOWN} more" if len(folds) > _SHOWN else ""
    return f"'auto' folds {shown}{more}"
