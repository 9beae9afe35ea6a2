"""Batch norms that a stage leaves out although it shrinks the layers before them."""

from __future__ import annotations

from typing import Any

from torch import nn

from tersely.document.recipe import AUTO, Stage
from tersely.planning.fusing.consumers import sole_consumers
from tersely.planning.fusing.fusion import NORMS
from tersely.planning.groups.channel_ties import is_of_channels
from tersely.planning.selecting.classes import original_class
from tersely.planning.stages.draft import Draft

_SHOWN = 3


def hint_at_norms(draft: Draft, example_inputs: Any) -> None:
    """Say which batch norms would keep channels that a stage wants to remove.

    A masked channel leaves such a norm as a constant, its shift, which the readers of the channel
    may not be able to take over.

    Args:
        draft: the plan so far; what is found is added to its hints.
        example_inputs: what to run the model with, or None to say nothing.
    """
    if example_inputs is None or draft.problems:
        return
    for number, stage in enumerate(draft.recipe.stages):
        if stage.shrink is not None:
            _hint_at_norms_of(draft, number, stage, example_inputs)


def _hint_at_norms_of(draft: Draft, number: int, stage: Stage, example_inputs: Any) -> None:
    universe = draft.universe
    pruned = [one for one in draft.targets if one is not None and one.method == "pruning"]
    of_pruned = {universe.modules[universe.index[one.module]] for one in pruned}
    heads = {
        universe.modules[universe.index[one.module]]
        for one in pruned
        if one.stage == number and one.target == "weight" and is_of_channels(one)
    }
    norms = {
        module: name
        for name, module in zip(universe.names, universe.modules, strict=True)
        if _type(module) in NORMS and module not in of_pruned and _has_shift(module)
    }
    if not (heads and norms):
        return
    model: nn.Module = universe.modules[0]
    try:
        consumers = sole_consumers(model, example_inputs, [*heads, *norms])
    except Exception:  # the user's forward; shrinking says what it raises
        return
    left = [norm for head in heads if (norm := consumers.get(head)) in norms and norm is not None]
    if not left:
        return
    names = sorted((norms[norm] for norm in left), key=universe.index.__getitem__)
    types = " and ".join(sorted({_type(norm) for norm in left}))
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    remedy = (
        f"add {types} to the op_types of the layers before them"
        if stage.dependency_groups == AUTO
        else "align their weight and bias with the layers before them, or prune both with "
        f"dependency_groups: auto and {types} in op_types"
    )
    are = "is" if len(names) == 1 else "are"
    draft.hints.append(
        f"{stage.path}: {shown}{more} {are} not pruned with the layers before them, so a masked "
        f"channel still carries the norm's shift, and shrink keeps it where no bias after it can "
        f"take that over; {remedy}"
    )


def _type(module: nn.Module) -> str:
    return original_class(type(module)).__name__


def _has_shift(module: nn.Module) -> bool:
    return module._parameters.get("bias") is not None
