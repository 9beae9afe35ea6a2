"""Dependency groups that a stage leaves to the graph of the model (rule B5.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from torch import nn

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import TargetPlan
from tersely.document.recipe import AUTO, Stage
from tersely.errors import PlanError
from tersely.planning.groups.channel_ties import (
    is_of_channels,
    ties_of,
    trace_channels,
    tracer_record,
)
from tersely.planning.groups.kept_by_shrinking import hints_at_heads
from tersely.planning.groups.regroup import Tie
from tersely.planning.stages.draft import Draft


def group_automatically(draft: Draft, example_inputs: Any) -> None:
    """Tie the targets that share output channels, in the stages that ask for it.

    Args:
        draft: the plan so far; its targets are replaced, what is wrong is added to its problems.
        example_inputs: what to run the model with, or None.

    Raises:
        UnknownPluginError: no installed plugin follows channels.
        BrokenPluginError: the one that does fails.
    """
    for number, stage in enumerate(draft.recipe.stages):
        if stage.dependency_groups == AUTO and not draft.problems:
            _group_stage(draft, number, stage, example_inputs)


def _group_stage(draft: Draft, number: int, stage: Stage, example_inputs: Any) -> None:
    place = f"{stage.path}.dependency_groups"
    if example_inputs is None:
        draft.blame(
            place,
            None,
            "'auto' runs the model to follow its channels, but there are no example inputs; give "
            "example_inputs to tersely.plan or tersely.attach, data.example to a job, or --example "
            "to tersely plan",
        )
        return
    record = tracer_record()
    own = {
        target.name: (place, target)
        for place, target in enumerate(draft.targets)
        if target is not None and target.stage == number and is_of_channels(target)
    }
    targets = {name: target for name, (_, target) in own.items()}
    taken = {
        one.pruning.dependency_group_id
        for one in draft.targets
        if one is not None and one.method == "pruning"
    }
    model: nn.Module = draft.universe.modules[0]
    try:
        found = trace_channels(model, example_inputs, parameters=tuple(targets), record=record)
        ties, remark = ties_of(found, targets, taken=taken)
    except PlanError as error:
        for problem in error.problems:
            draft.blame(place, None, problem)
        return
    if remark is not None:
        draft.hints.append(f"{place}: {remark}")
    if stage.shrink is not None:
        draft.hints.extend(hints_at_heads(stage, targets, ties))
    _tie(draft, ties, own)


def _tie(draft: Draft, ties: Mapping[str, Tie], own: Mapping[str, tuple[int, TargetPlan]]) -> None:
    settings: dict[object, PruningSetting] = {}
    for name, tie in ties.items():
        index, target = own[name]
        keys = tie.keys_for(target)
        if keys:
            alike = (id(target.setting), *((key, str(one)) for key, one in keys.items()))
            if alike not in settings:
                settings[alike] = with_keys(target, **keys)
            blocks = Blocks(tie.block_size(target)) if tie.cutting.rows > 1 else target.blocks
            draft.targets[index] = attrs.evolve(target, setting=settings[alike], blocks=blocks)


def with_keys(target: TargetPlan, **keys: object) -> PruningSetting:
    """Return a pruning target's setting with further keys.

    Args:
        target: the target.
        **keys: keys of a config list, and what they say.
    """
    return PruningSetting.of({**target.setting.to_dict(), **keys})
