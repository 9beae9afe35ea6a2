"""Finds what folds into each quantized module and writes it into the config list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tersely.document.load import parse_config_list
from tersely.document.reading.source import read_document
from tersely.document.recipe import AUTO, Entry, Recipe, Stage
from tersely.errors import PlanError
from tersely.json_value import Json
from tersely.planning.data import PlanData
from tersely.planning.fusing.consumers import sole_consumers
from tersely.planning.fusing.fusion import FOLLOWERS, HEADS, is_foldable, shared_tensor
from tersely.planning.plan import Plan
from tersely.planning.selecting.classes import original_class
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


def fold_chains(
    model: nn.Module, resolved: PlanData, owners: Owners, example_inputs: Any
) -> dict[str, list[tuple[str, ...]]]:
    """Return the tuples of names to fold, by the path of the entry that decides on the first.

    Args:
        model: the model, which is run once and not changed.
        resolved: its plan; what its recipe folds already is left out.
        owners: its modules, and who shares their tensors; what is shared folds nowhere.
        example_inputs: what to run it with.

    Raises:
        PlanError: the model does not run with these inputs.
    """
    universe = owners.universe
    entry_of: dict[nn.Module, str] = {}
    for target in resolved.targets:
        if target.method != "quantization":
            continue
        module = universe.modules[universe.index[target.module]]
        if target.target == "weight" or module not in entry_of:
            entry_of[module] = target.origin.path
    taken = {name for one in resolved.recipe.stages for names in one.folded for name in names}
    names = {
        module: name
        for name, module in zip(reversed(universe.names), reversed(universe.modules), strict=True)
    }
    heads = [module for module in entry_of if _type(module) in HEADS and names[module] not in taken]
    followers = [
        module
        for module, name in names.items()
        if _type(module) in FOLLOWERS and module not in entry_of and name not in taken
    ]
    consumers = _run(model, example_inputs, [*heads, *followers])
    free = {one for one in followers if shared_tensor(one, owners) is None}
    found: dict[str, list[tuple[str, ...]]] = {}
    for head in heads:
        if shared_tensor(head, owners) is not None:
            continue
        chain = _chain(head, consumers, free)
        if len(chain) > 1:
            folded = tuple(names[module] for module in chain)
            found.setdefault(entry_of[head], []).append(folded)
    return found


def _run(
    model: nn.Module, example_inputs: Any, modules: list[nn.Module]
) -> dict[nn.Module, nn.Module]:
    try:
        return sole_consumers(model, example_inputs, modules)
    except Exception as error:  # the user's forward may raise anything
        raise PlanError(
            "the model does not run with the example inputs, as finding fuse_names requires: "
            f"{type(error).__name__}: {error}"
        ) from error


def _chain(
    head: nn.Module, consumers: Mapping[nn.Module, nn.Module], followers: set[nn.Module]
) -> list[nn.Module]:
    chain = [head]
    while (following := consumers.get(chain[-1])) in followers and following is not None:
        if not is_foldable([_type(module) for module in (*chain, following)]) or (
            _has_no_statistics(following)
        ):
            break
        chain.append(following)
    return chain


def _has_no_statistics(module: nn.Module) -> bool:
    """Whether it normalizes by the current batch, which cannot be folded."""
    return "running_var" in module._buffers and module._buffers["running_var"] is None


def _type(module: nn.Module) -> str:
    return original_class(type(module)).__name__
