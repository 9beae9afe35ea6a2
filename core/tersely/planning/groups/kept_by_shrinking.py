"""What a stage masks and its shrink would keep, told before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from tersely.contracts.target_plan import TargetPlan
from tersely.document.recipe import AUTO, Stage
from tersely.planning.fusing.consumers import sole_consumers
from tersely.planning.fusing.fusion import NORMS
from tersely.planning.groups.channel_ties import is_of_channels
from tersely.planning.groups.regroup import Tie
from tersely.planning.selecting.classes import original_class
from tersely.planning.stages.draft import Draft, and_more

_OF_CHANNELS = NORMS | {"InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"}
"""Class names of norms that make their shift of a channel of zeros."""

_MATRIX = 2


def hint_at_norms(draft: Draft, example_inputs: Any) -> None:
    """Say which norms would keep channels that a stage wants to remove.

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


def hints_at_heads(
    stage: Stage, targets: Mapping[str, TargetPlan], ties: Mapping[str, Tie]
) -> Iterator[str]:
    """Yield what to ask for where channels of heads are masked, of which only whole ones can go.

    Args:
        stage: a stage that shrinks.
        targets: its targets by full name.
        ties: full name of a target -> how its channels go together.
    """
    alike: dict[tuple[int, int, int, bool], list[str]] = {}
    for name, tie in ties.items():
        target = targets[name]
        shape = target.shape or ()
        if len(shape) == _MATRIX and tie.runs > 1 and tie.cutting.rows == 1:
            parts = tie.cutting.parts
            size = shape[target.output_dim] // (tie.runs * parts)
            kind = tie.runs, size, parts, target.output_dim == 0
            alike.setdefault(kind, []).append(name)
    for (runs, size, parts, is_by_rows), names in alike.items():
        rows, columns = f"granularity: [{size}, -1]", f"granularity: [-1, {size}]"
        outputs, inputs = (rows, columns) if is_by_rows else (columns, rows)
        packed = f" and dependency_parts: {parts}" if parts > 1 else ""
        yield (
            f"{stage.path}: {names[0]}{and_more(len(names) - 1)}: equally many channels are masked "
            f"in each of {runs} runs, and shrink keeps them where the runs are the heads of an "
            f"attention; to remove whole heads, give query, key and value {outputs}{packed}, what "
            f"the projection after them reads {inputs}, and all of a layer one "
            "dependency_group_id, such as 'heads of {layer}'"
        )


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
        if _type(module) in _OF_CHANNELS and module not in of_pruned and _has_shift(module)
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
    remedy = (
        f"add {types} to the op_types of the layers before them"
        if stage.dependency_groups == AUTO
        else "align their weight and bias with the layers before them, or prune both with "
        f"dependency_groups: auto and {types} in op_types"
    )
    draft.hints.append(
        f"{stage.path}: {names[0]}{and_more(len(names) - 1)}: not pruned with the layer before, so "
        "a masked channel still carries the norm's shift, and shrink keeps it where no bias after "
        f"it can take that over; {remedy}"
    )


def _type(module: nn.Module) -> str:
    return original_class(type(module)).__name__


def _has_shift(module: nn.Module) -> bool:
    return module._parameters.get("bias") is not None
