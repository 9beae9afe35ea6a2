"""Losses that take several targets at once: all those of an entry, in the order written."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tersely.contracts.settings import DistillationSetting
from tersely.contracts.target_plan import TargetPlan
from tersely.planning.plan import Plan
from tersely.planning.stages.draft import Draft
from tersely.registry.registry import registry


def is_joined(target: TargetPlan) -> bool:
    """Tell whether the loss of a target takes it together with the others of its entry.

    Args:
        target: a target of any method.
    """
    if target.method != "distillation":
        return False
    return registry().losses.info(target.distillation.loss).targets != 1


def groups_of(targets: Sequence[TargetPlan]) -> list[list[int]]:
    """Return the places of targets that one call of a loss takes, in the order it takes them.

    Args:
        targets: a plan's targets, or those of one method.
    """
    groups: dict[object, list[int]] = {}
    for place, target in enumerate(targets):
        key: object = place
        if is_joined(target):
            key = (target.stage, target.origin.path, target.distillation.loss)
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def join_targets(plan: Plan, draft: Draft) -> Plan:
    """Return a plan with joined targets in the order written, each with its own link.

    Args:
        plan: the plan.
        draft: where problems are collected.
    """
    if all(stage.method != "distillation" for stage in plan.recipe.stages):
        return plan
    if not any(is_joined(target) for target in plan.targets):
        return plan
    targets = list(plan.targets)
    for places in groups_of(plan.targets):
        group = [plan.targets[place] for place in places]
        if not is_joined(group[0]):
            continue
        ordered = _in_order(group, draft)
        problem = _problem(ordered)
        if problem is not None:
            draft.blame(ordered[0].origin.path, ordered[0].name, problem)
            continue
        for place, target in zip(places, _linked(ordered), strict=True):
            targets[place] = target
    return attrs.evolve(plan, targets=tuple(targets))


def _in_order(group: list[TargetPlan], draft: Draft) -> list[TargetPlan]:
    stage = draft.recipe.stages[group[0].stage]
    entry = next(one for one in stage.entries if one.path == group[0].origin.path)
    written: dict[str, int] = {}
    for name in entry.op_names or ():
        position = draft.universe.canonical(name)
        if position is not None:
            written.setdefault(draft.universe.names[position], len(written))
    return sorted(group, key=lambda target: written.get(target.module, len(written)))


def _problem(group: list[TargetPlan]) -> str | None:
    setting = group[0].distillation
    wanted = registry().losses.info(setting.loss).targets
    names = ", ".join(target.name for target in group)
    if wanted is not None and len(group) != wanted:
        return (
            f"{setting.loss} takes {wanted} targets of an entry together, and this entry has "
            f"{len(group)} for it: {names}; write one entry for each {wanted}, and leave out "
            "targets that another entry configures"
        )
    if setting.projection is not None:
        return f"{setting.loss} takes several targets, which 'projection' cannot map; remove it"
    if len({target.distillation.weight for target in group}) > 1:
        return f"{setting.loss} takes {names} together and has one 'lambda'; give them the same"
    modules = dict.fromkeys(target.module for target in group)
    if setting.links is not None and len(setting.links) != len(modules):
        return (
            f"{setting.loss} takes several targets, and 'link' names {len(setting.links)} modules "
            f"of the teacher for {len(modules)} of the student ({', '.join(modules)}); write one "
            "for each, in the same order"
        )
    return None


def _linked(group: list[TargetPlan]) -> list[TargetPlan]:
    links = group[0].distillation.links
    if links is None:
        return group
    modules = list(dict.fromkeys(target.module for target in group))
    of_module = dict(zip(modules, links, strict=True))
    found = []
    for target in group:
        before = target.distillation
        keys = {**before.to_dict(), "link": of_module[target.module]}
        setting = DistillationSetting.of(keys, default_loss=before.loss)
        found.append(attrs.evolve(target, setting=setting))
    return found
