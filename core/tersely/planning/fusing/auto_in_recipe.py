"""Replaces ``fuse_names: auto`` in a recipe, and in its presets, by what folds (Q4.7, Q6.7)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import attrs
from torch import nn

from tersely.contracts.quantized_weights import Equalizes
from tersely.document.entries import entries_of, stages_of
from tersely.document.path import spell_path
from tersely.document.recipe import AUTO, NONE, Entry, FuseNames, Recipe, Stage
from tersely.errors import PlanError
from tersely.planning.fusing.foldable_chains import fold_chains
from tersely.planning.fusing.fusion import NORMS, norms_of
from tersely.planning.stages.algorithms import is_declared
from tersely.planning.stages.draft import Draft
from tersely.registry.registry import registry


def fuse_automatically(draft: Draft, example_inputs: Any) -> None:
    """Write what folds into each quantized module, where the recipe asks for it or a preset does.

    The recipe of the draft then has the names, in its stages and in its document, so that a plan
    that is saved or printed folds what was found.

    Args:
        draft: the plan so far; what is wrong is added to its problems.
        example_inputs: what to run the model with, or None.
    """
    asking = [one for stage in draft.recipe.stages for one in _asking(stage)]
    presets = [stage for stage in draft.recipe.stages if stage.folds_by_preset]
    if not (asking or presets) or draft.problems:
        return
    place = f"{asking[0].path}.fuse_names" if asking else ""
    if example_inputs is None and asking:
        draft.blame(
            place,
            None,
            "'auto' runs the model to see what reads the output of each layer, but there are no "
            "example inputs; give example_inputs to tersely.plan or tersely.attach, data.example "
            "to a job, or --example to tersely plan",
        )
        return
    chains, obstacle = _chains(draft, example_inputs)
    if obstacle and asking:
        draft.blame(place, None, obstacle)
        return
    found: dict[str, FuseNames] = {}
    for stage in draft.recipe.stages:
        own = {entry.path: tuple(chains.get(entry.path, ())) for entry in stage.entries}
        for one in _asking(stage):
            found[one.path] = own.pop(one.path) if isinstance(one, Entry) else _all_of(own)
        if stage.folds_by_preset:
            why = obstacle or _divides_inputs(stage)
            found[stage.path] = () if why else _all_of(own)
            if why and _leaves_norms(draft, stage, None if obstacle else _all_of(own)):
                draft.hints.append(_unfolded(stage, why))
    draft.recipe = _written(draft.recipe, found)
    for one in asking:
        draft.hints.append(f"{one.path}.fuse_names: 'auto' {_said(found[one.path])}")
    for stage in presets:
        if found[stage.path]:
            draft.hints.append(f"{stage.path}: the preset {_said(found[stage.path])}")


def _chains(draft: Draft, example_inputs: Any) -> tuple[dict[str, list[tuple[str, ...]]], str]:
    """Return what folds by the path of its entry, or why that is not known."""
    if example_inputs is None:
        return {}, "there are no example inputs to find what can be folded; give them, as for auto"
    model: nn.Module = draft.universe.modules[0]
    try:
        return fold_chains(model, draft.finish(), draft.owners, example_inputs), ""
    except PlanError as error:
        return {}, str(error)


def _all_of(chains: Mapping[str, FuseNames]) -> FuseNames:
    return tuple(tuple(names) for chain in chains.values() for names in chain)


def _divides_inputs(stage: Stage) -> str:
    """Return why a preset folds nothing for an algorithm that divides inputs by factors.

    What makes an input then takes the factors, which a batch norm can and a folded layer cannot.
    """
    quantizers = registry().quantizers
    info = quantizers.info(stage.algorithm)
    if is_declared(Equalizes, quantizers[stage.algorithm], info):
        return f"{stage.algorithm} needs them to absorb the factors of inputs"
    return ""


def _leaves_norms(draft: Draft, stage: Stage, folds: FuseNames | None) -> bool:
    """Return whether a batch norm would fold into what a stage quantizes, or may where unknown."""
    universe = draft.universe
    if folds is not None:
        named = {universe.index[name] for names in folds for name in names[1:]}
        return any(universe.class_of(position).__name__ in NORMS for position in named)
    present = {universe.class_of(position).__name__ for position in range(len(universe.modules))}
    paths = {entry.path for entry in stage.entries}
    quantized = {
        universe.class_of(universe.index[one.module]).__name__
        for one in draft.targets
        if one is not None and one.origin.path in paths
    }
    return any(norms_of(head) & present for head in quantized)


def _unfolded(stage: Stage, why: str) -> str:
    return (
        f"{stage.path}: the preset does not fold batch norms, so they run in floats: {why}; to "
        "keep them without this hint, write fuse_names: none"
    )


def _asking(stage: Stage) -> list[Stage | Entry]:
    """Return the parts of a stage that ask for it; entries first, as they choose first."""
    return [one for one in reversed(stage.holders) if one.fuse_names == AUTO]


def _written(recipe: Recipe, found: Mapping[str, FuseNames]) -> Recipe:
    document = copy.deepcopy(dict(recipe.document))
    for place in (*stages_of(document, "recipe"), *entries_of(document, "recipe")):
        names = found.get(spell_path(place.path))
        if names is not None:
            place.data["fuse_names"] = [list(group) for group in names] or NONE
    stages = tuple(
        attrs.evolve(
            stage,
            fuse_names=found.get(stage.path, stage.fuse_names),
            folds_by_preset=False,
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
        return "found nothing that folds into a quantized module"
    shown = ", ".join(" + ".join(names) for names in folds[:_SHOWN])
    more = f" and {len(folds) - _SHOWN} more" if len(folds) > _SHOWN else ""
    return f"folds {shown}{more}"
