"""`auto_fuse_names`: writes what folds into each quantized module into a config list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tersely.document.load import parse_config_list
from tersely.document.reading.source import read_document
from tersely.document.recipe import AUTO, Entry, Recipe, Stage
from tersely.json_value import Json
from tersely.planning.fusing.foldable_chains import fold_chains
from tersely.planning.plan import Plan
from tersely.planning.selecting.selection import Universe
from tersely.planning.stages.draft import Draft
from tersely.planning.stages.stage import plan_stage
from tersely.planning.targets.owners import Owners
from tersely.planning.targets.templates import Templates
from tersely.registry.descriptors import QuantizerInfo
from tersely.registry.registry import registry

_ANY = QuantizerInfo(name="any", implementation="tersely.contracts.quantizer:Quantizer")
"""A placeholder for the algorithm, which the caller has not named yet."""


def auto_fuse_names(
    model: nn.Module, config_list: Sequence[Mapping[str, Json]], example_inputs: Any
) -> list[dict[str, Json]]:
    """Return a config list whose ``fuse_names`` say what folds into each quantized module.

    The model is run once in evaluation mode. A batch norm or an activation is named where it alone
    reads what the quantized module computes, each of them runs once, and neither is quantized
    itself. ``fuse_names`` that are there already are kept.

    Args:
        model: the model, which is not changed.
        config_list: a quantization config list.
        example_inputs: what to run the model with: a tensor, a tuple or list of arguments, or a
            mapping of keyword arguments, on the model's device.

    Returns:
        A new config list; the one given is not changed.

    Raises:
        ConfigError: the config list is wrong.
        PlanError: it does not fit the model, or the model does not run with these inputs.
    """
    entries = parse_config_list("quantization", list(config_list))
    resolved, owners = _plan(model, entries)
    written: list[dict[str, Json]] = list(read_document(list(config_list)).data)
    for path, chains in fold_chains(model, resolved, owners, example_inputs).items():
        index = [entry.path for entry in entries].index(path)
        known = [] if entries[index].fuse_names == AUTO else written[index].get("fuse_names") or []
        written[index] = {**written[index], "fuse_names": [*known, *map(list, chains)]}
    return written


def _plan(model: nn.Module, entries: tuple[Entry, ...]) -> tuple[Plan, Owners]:
    owners = Owners(Universe.of(model))
    recipe = Recipe(stages=(Stage(method="quantization", path="", entries=entries),))
    draft = Draft(owners.universe, owners, Templates(registry().module_settings()), recipe)
    plan_stage(draft, 0, info=_ANY)
    resolved = draft.finish()
    draft.refuse_problems()
    return resolved, owners
