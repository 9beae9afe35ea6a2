"""Finds which pruning targets share output channels and ties them in the config list."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tersely.document.load import parse_config_list
from tersely.document.recipe import Entry, Recipe, Stage
from tersely.json_value import Json
from tersely.planning.groups.channel_ties import (
    is_of_channels,
    ties_of,
    trace_channels,
    tracer_record,
)
from tersely.planning.groups.regroup import regroup
from tersely.planning.plan import Plan
from tersely.planning.resolve import PlanWarning, warn_of_remarks
from tersely.planning.selecting.layer_ids import spell_layers
from tersely.planning.selecting.selection import Universe
from tersely.planning.stages.draft import Draft
from tersely.planning.stages.stage import plan_stage
from tersely.planning.targets.owners import Owners
from tersely.planning.targets.templates import Templates
from tersely.registry.descriptors import PrunerInfo
from tersely.registry.registry import registry

_ANY_STRUCTURED = PrunerInfo(
    name="any_structured",
    implementation="tersely.contracts.pruner:Pruner",
    default_granularity="output_channel",
)
"""A placeholder for the algorithm, which the caller has not named yet."""


def auto_dependency_groups(
    model: nn.Module,
    config_list: Sequence[Mapping[str, Json]],
    example_inputs: Any,
    *,
    tracer: str | None = None,
) -> list[dict[str, Json]]:
    """Return a config list in which targets that share output channels are pruned together.

    Targets whose channels meet in an addition or a multiplication, or pass through a depthwise
    convolution, get one ``dependency_group_id``. ``internal_metric_block`` is set where groups of
    a convolution or heads of an attention have to stay equally large, ``dependency_parts`` where
    one weight packs several, ``granularity`` where neighbouring channels go together. Everything
    else that the config list says stays in effect; ids that it gives already are kept.

    Args:
        model: the model, which is not touched.
        config_list: a pruning config list. ``granularity: default`` is taken to mean output
            channels; targets of another granularity are left as they are.
        example_inputs: what to run the model with: a tensor, a tuple or list of arguments, or a
            mapping of keyword arguments, on the model's device.
        tracer: the name of the dependency tracer; by default ``exported_graph``.

    Returns:
        A new config list; the one given is not changed.

    Raises:
        ConfigError: the config list is wrong.
        PlanError: it does not fit the model, the model cannot be traced, or targets share channels
            in a way that no key can express.
        UnknownPluginError: no installed plugin provides the tracer.
        BrokenPluginError: the tracer fails.
    """
    # First, so that a missing plugin is reported before anything else.
    record = tracer_record(tracer)
    entries = parse_config_list("pruning", list(config_list))
    resolved, universe = _plan(model, entries)
    warn_of_remarks(resolved)
    targets = {one.name: one for one in resolved if is_of_channels(one)}
    found = trace_channels(model, example_inputs, parameters=tuple(targets), record=record)
    taken = {one.pruning.dependency_group_id for one in resolved}
    ties, remark = ties_of(found, targets, taken=taken)
    if remark is not None:
        warnings.warn(remark, PlanWarning, stacklevel=2)
    return regroup(config_list, entries=entries, resolved=resolved, universe=universe, ties=ties)


def _plan(model: nn.Module, entries: tuple[Entry, ...]) -> tuple[Plan, Universe]:
    universe = Universe.of(model)
    recipe = Recipe(stages=(Stage(method="pruning", path="", entries=entries),))
    draft = Draft(universe, Owners(universe), Templates(registry().module_settings()), recipe)
    plan_stage(draft, 0, info=_ANY_STRUCTURED)
    spell_layers(draft)
    resolved = draft.finish()
    draft.refuse_problems()
    return resolved, universe
