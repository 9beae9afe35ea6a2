"""Finds which modules fold into each quantized module, by running the model once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tersely.errors import PlanError
from tersely.planning.data import PlanData
from tersely.planning.fusing.consumers import sole_consumers
from tersely.planning.fusing.fusion import FOLLOWERS, HEADS, is_foldable, shared_tensor
from tersely.planning.selecting.classes import original_class
from tersely.planning.targets.owners import Owners


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
