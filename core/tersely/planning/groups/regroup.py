"""Writes ties between targets into a config list, and leaves the rest of it as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import attrs

from tersely.contracts.target_plan import TargetPlan
from tersely.contracts.tracer import ChannelBlocks
from tersely.document.entries import EXCLUDES, SELECTORS
from tersely.document.recipe import Entry
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.planning.selecting.selection import Universe, select


@attrs.frozen
class Tie:
    """What the config list has to say of one target.

    Attributes:
        group: its ``dependency_group_id``, or None.
        runs: equal runs of its blocks that lose equally many; 1 where nothing has to be said.
        cutting: how its channels become blocks.
    """

    group: Json
    runs: int
    cutting: ChannelBlocks

    def keys_for(self, target: TargetPlan) -> dict[str, Json]:
        """Return the keys that the target's setting lacks."""
        keys: dict[str, Json] = {}
        if self.group not in (None, target.pruning.dependency_group_id):
            keys["dependency_group_id"] = self.group
        runs = 1 if self.runs == 1 else self.runs * self.cutting.parts
        if runs not in (1, target.pruning.internal_metric_block):
            keys["internal_metric_block"] = runs
        if self.cutting.parts not in (1, target.pruning.dependency_parts):
            keys["dependency_parts"] = self.cutting.parts
        if self.cutting.rows > 1:
            keys["granularity"] = list(self.block_size(target))
        return keys

    def block_size(self, target: TargetPlan) -> tuple[int, ...]:
        """Return the size of a block of the target's channels."""
        rank = len(target.shape or ())
        dim = min(target.output_dim, rank - 1)
        return tuple(self.cutting.rows if one == dim else -1 for one in range(rank))


Change = tuple[tuple[str, tuple[tuple[str, Json | tuple[Json, ...]], ...]], ...]
"""For each target of a module the keys to add; equal for modules that can share an entry."""


def regroup(
    config_list: Sequence[Mapping[str, Json]],
    *,
    entries: Sequence[Entry],
    resolved: Plan,
    universe: Universe,
    ties: Mapping[str, Tie],
) -> list[dict[str, Json]]:
    """Return a config list that says the ties and otherwise the same.

    An entry is split: modules with something to say get entries of their own, one for all that
    have the same to say, which name them and copy every other key; the entry itself then excludes
    them. They take the place of the entry, so the order of precedence does not change.

    Args:
        config_list: the entries as the user wrote them; not changed.
        entries: the same, checked.
        resolved: the plan of their targets.
        universe: the model's modules.
        ties: full name of a target -> its tie.
    """
    by_entry: dict[str, dict[str, list[TargetPlan]]] = {}
    for target in resolved:
        modules = by_entry.setdefault(target.origin.path, {})
        modules.setdefault(target.module, []).append(target)
    result: list[dict[str, Json]] = []
    for written, entry in zip(config_list, entries, strict=True):
        changes: dict[tuple[Change, bool], list[str]] = {}
        for module, targets in by_entry.get(entry.path, {}).items():
            change = _change(targets, ties)
            if change:
                key = (change, _is_shortcut(change, targets, entry))
                changes.setdefault(key, []).append(module)
        for (change, is_shortcut), names in changes.items():
            result.append(_own_entry(written, names, change, is_shortcut=is_shortcut))
        taken = [name for names in changes.values() for name in names]
        if not taken:
            result.append(copy.deepcopy(dict(written)))
        elif len(select(universe, entry).positions) > len(taken):
            rest = copy.deepcopy(dict(written))
            rest["exclude_op_names"] = [*(rest.get("exclude_op_names") or ()), *taken]
            result.append(rest)
    return result


def _change(targets: Sequence[TargetPlan], ties: Mapping[str, Tie]) -> Change:
    return tuple(
        (target.target, tuple((key, _frozen(value)) for key, value in keys.items()))
        for target in targets
        if target.name in ties and (keys := ties[target.name].keys_for(target))
    )


def _frozen(value: Json) -> Json | tuple[Json, ...]:
    return tuple(value) if isinstance(value, list) else value


def _thawed(keys: Sequence[tuple[str, Json | tuple[Json, ...]]]) -> dict[str, Json]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in keys}


def _is_shortcut(change: Change, targets: Sequence[TargetPlan], entry: Entry) -> bool:
    """Whether a key of the entry would reach these targets, all alike, and no others."""
    if len({keys for _, keys in change}) > 1:
        return False
    reached = {
        target.target
        for target in targets
        if target.align is None and "dependency_group_id" in target.setting.to_dict()
    }
    added = {key for _, keys in change for key, _ in keys}
    is_overridden = any(
        setting.get(key) is not None for setting in entry.target_settings.values() for key in added
    )
    return reached == {target for target, _ in change} and not is_overridden


def _own_entry(
    written: Mapping[str, Json], names: Sequence[str], change: Change, *, is_shortcut: bool
) -> dict[str, Json]:
    rest = {
        key: copy.deepcopy(value)
        for key, value in written.items()
        if key not in (*SELECTORS, *EXCLUDES)
    }
    if is_shortcut:
        _, keys = change[0]
        return {"op_names": list(names), **rest, **_thawed(keys)}
    settings = dict(rest.get("target_settings") or {})
    for target, keys in change:
        settings[target] = {**(settings.get(target) or {}), **_thawed(keys)}
    return {"op_names": list(names), **rest, "target_settings": settings}
