"""What differs between two plans: a plan that was reviewed is carried out exactly, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import attrs

from tersely.document.recipe import Stage
from tersely.errors import PlanError
from tersely.json_value import Json
from tersely.planning.data import PlanData
from tersely.planning.encoding import encode_plan

_Key: TypeAlias = tuple[int, str, str]
_LOOKED_AT = (
    "method",
    "algorithm",
    "kind",
    "module_type",
    "shape",
    "output_dim",
    "input_dim",
    "channel_dim",
    "groups",
    "has_experts",
    "blocks",
    "shared_with",
)
# The content of entries shows in the targets, and their position alone has no effect.
_OF_STAGES = {one.name for one in attrs.fields(Stage)} - {"method", "path", "entries"}


def check_unchanged(reviewed: PlanData, resolved: PlanData) -> None:
    """Refuse a plan that is not the one that was reviewed.

    Args:
        reviewed: the plan as somebody read it.
        resolved: the plan as it is now.

    Raises:
        PlanError: they differ; one sentence for each target.
    """
    # Two methods of one weight say the same of its shape.
    changes = list(dict.fromkeys(plan_changes(reviewed, resolved)))
    if changes:
        raise PlanError(
            [f"{change}; plan again, or undo the change" for change in changes],
        )


def plan_changes(before: PlanData, after: PlanData) -> Iterator[str]:
    """Yield what differs between two plans, a sentence for each target and key of a stage.

    Args:
        before: one plan.
        after: the plan that may differ from it.
    """
    yield from _changed_stages(before.recipe.stages, after.recipe.stages)
    old, new = _by_target(before), _by_target(after)
    for key, target in old.items():
        if key not in new:
            yield f"{_name(target)} was planned for {target['method']} and no longer is"
            continue
        for what, was, now in _differences(target, new[key]):
            yield f"{_name(target)}: {what} was {was}, now it is {now}"
    for key, target in new.items():
        if key not in old:
            yield f"{_name(target)} was not planned for {target['method']} and now is"


def _changed_stages(before: Sequence[Stage], after: Sequence[Stage]) -> Iterator[str]:
    if len(before) != len(after):
        yield f"the recipe had {len(before)} stages, now it has {len(after)}"
        return
    for old, new in zip(before, after, strict=True):
        was, now = attrs.asdict(old), attrs.asdict(new)
        for key in was:
            if key in _OF_STAGES and was[key] != now[key]:
                yield f"{old.path}: {key} was {was[key]}, now it is {now[key]}"


def _by_target(plan: PlanData) -> dict[_Key, Mapping[str, Json]]:
    return {
        (target["stage"], target["module"], target["target"]): target
        for target in encode_plan(plan)["targets"]
    }


def _differences(
    old: Mapping[str, Json], new: Mapping[str, Json]
) -> Iterator[tuple[str, Json, Json]]:
    for key in _LOOKED_AT:
        if old[key] != new[key]:
            yield key, old[key], new[key]
    before, after = old["setting"], new["setting"]
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield key, before.get(key), after.get(key)


def _name(target: Mapping[str, Json]) -> str:
    module, name = target["module"], target["target"]
    return f"{module}.{name}" if module else str(name)
