"""The targets of one module class under one entry, with their settings (rules T2 and T4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from tersely.contracts.kinds import Method
from tersely.contracts.settings import (
    DEFAULT_LOSS,
    DEFAULT_MASKING,
    DistillationSetting,
    PruningSetting,
    QuantizationSetting,
    Setting,
)
from tersely.document.recipe import Entry
from tersely.json_value import Json
from tersely.planning.targets.addresses import Address, parse_address, twin
from tersely.planning.targets.templates import template_of
from tersely.registry.descriptors import PrunerInfo, QuantizerInfo
from tersely.registry.registry import registry

_RANKING = ("sparse_ratio", "sparse_threshold", "global_group_id", "dependency_group_id")
_RANKED_ONLY = (
    *_RANKING,
    "min_sparse_ratio",
    "max_sparse_ratio",
    "internal_metric_block",
    "dependency_parts",
    "budget",
)
_COMPANIONS = {
    "mask_value": "apply_method",
    "projection": "link",
    "dependency_parts": "internal_metric_block",
    "budget": "global_group_id",
}
"""Keys that no template has, and the key whose targets they reach as shortcuts (rule T4)."""


@attrs.frozen
class Row:
    """One target that every module of a class has under one entry.

    Attributes:
        target: the target's name as the entry or the template spells it.
        address: where it is when it is an input or output, else None.
        setting: its resolved setting, shared by all modules of the class.
        is_explicit: whether the user named it, so that its absence is a mistake.
    """

    target: str
    address: Address | None
    setting: Setting
    is_explicit: bool


@attrs.frozen
class Rows:
    """All targets of a class under one entry.

    Attributes:
        rows: the targets, in the order of the entry or of the template.
        used: the shortcut keys that reached at least one target.
        idle_settings: targets of ``target_settings`` that ``target_names`` leaves out.
        problems: settings that contradict themselves: where they are, and how.
    """

    rows: tuple[Row, ...]
    used: frozenset[str]
    idle_settings: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


def setting_of(
    method: Method, keys: Mapping[str, Json], info: PrunerInfo | QuantizerInfo | None
) -> Setting:
    """Return the setting that resolved keys mean; the one place that fills defaults.

    Args:
        method: pruning, quantization or distillation.
        keys: keys of a config list after template, shortcuts and target_settings.
        info: the algorithm's descriptor, or None for distillation.
    """
    if method == "pruning":
        return PruningSetting.of(keys)
    if isinstance(info, QuantizerInfo):
        return QuantizationSetting.of(keys, default_scheme=info.default_scheme)
    return DistillationSetting.of(keys, default_loss=registry().losses.official(DEFAULT_LOSS))


def rows_of(
    entry: Entry,
    template: Mapping[str, Mapping[str, Json]],
    method: Method,
    *,
    info: PrunerInfo | QuantizerInfo | None,
) -> Rows:
    """Resolve the targets of a class.

    Args:
        entry: one mapping of a config list.
        template: the class's default targets, without stars; empty when it has none.
        method: pruning, quantization or distillation.
        info: the descriptor of the stage's algorithm, or None for distillation.
    """
    explicit = _explicit_targets(entry)
    names = entry.target_names if entry.target_names is not None else _merged(template, entry)
    used: set[str] = set()
    rows: dict[str, Row] = {}
    problems: list[tuple[str, str]] = []
    for target in names:
        if target in rows or twin(target) in rows:
            continue
        own = _settings_for(entry, target)
        keys = _resolve(entry, own, _base(template, target, method, own), used)
        _share_by_default(keys, info)
        setting = setting_of(method, keys, info)
        problem = _contradiction(own, setting)
        if problem:
            problems.append((f"{entry.path}.target_settings.{target}", problem))
        rows[target] = Row(target, parse_address(target), setting, target in explicit)
    idle = [name for name in entry.target_settings if name not in rows and twin(name) not in rows]
    return Rows(tuple(rows.values()), frozenset(used), tuple(idle), tuple(problems))


def _explicit_targets(entry: Entry) -> frozenset[str]:
    return frozenset([*(entry.target_names or ()), *entry.target_settings])


def _merged(template: Mapping[str, object], entry: Entry) -> Sequence[str]:
    extra = [name for name in entry.target_settings if twin(name) not in template]
    return list(dict.fromkeys([*template, *extra]))


def _settings_for(entry: Entry, target: str) -> Mapping[str, Json]:
    found = entry.target_settings.get(target)
    if found is None:
        found = entry.target_settings.get(twin(target) or "")
    return {} if found is None else {key: v for key, v in found.items() if v is not None}


def _base(
    template: Mapping[str, Mapping[str, Json]],
    target: str,
    method: Method,
    own: Mapping[str, Json],
) -> Mapping[str, Json]:
    if "align" in own and target not in template and twin(target) not in template:
        # A target that follows another has no importance, so no shortcut may give it one.
        return {"apply_method": DEFAULT_MASKING}
    return template_of(template, target, method)


def _resolve(
    entry: Entry, own: Mapping[str, Json], base: Mapping[str, Json], used: set[str]
) -> dict[str, Json]:
    setting = dict(base)
    for key, value in entry.shortcuts.items():
        if key in base or _COMPANIONS.get(key) in base:
            used.add(key)
            if value is not None:
                setting[key] = value
    setting.update(own)
    # A target follows another or is ranked itself; what it says of its own decides which.
    if "align" in own:
        setting.update({key: None for key in _RANKED_ONLY if key in setting and key not in own})
    elif setting.get("align") is not None and any(key in own for key in _RANKING):
        setting["align"] = None
    return setting


def _share_by_default(keys: dict[str, Json], info: PrunerInfo | QuantizerInfo | None) -> None:
    # What an algorithm with one budget for the whole model means by a ratio.
    if not isinstance(info, PrunerInfo) or info.default_scope != "global":
        return
    ratio = keys.get("sparse_ratio")
    if ratio is not None and keys.get("align") is None and keys.get("global_group_id") is None:
        keys["global_group_id"] = f"{info.name} {ratio}"


def _contradiction(own: Mapping[str, Json], setting: Setting) -> str | None:
    if not isinstance(setting, PruningSetting):
        return None
    if own.get("align") is not None:
        both = [key for key in _RANKING if key in own]
        if both:
            return (
                f"a target with 'align' takes its mask from another target, so {both[0]!r} has no "
                "meaning for it; remove one of the two"
            )
    asked = (setting.sparse_ratio, setting.sparse_threshold)
    if setting.align is None and None not in asked:
        return (
            "the target has both 'sparse_ratio' and 'sparse_threshold' after its entry's shortcut "
            "keys; give the entry's key to the other targets in target_settings instead"
        )
    low, high = setting.min_sparse_ratio, setting.max_sparse_ratio
    if low > high:
        return f"min_sparse_ratio {low} is larger than max_sparse_ratio {high}"
    return None
