"""Units of a search: groups of targets that share one ratio or one bit width."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import attrs

from tersely.contracts.kinds import Method
from tersely.contracts.target_plan import TargetPlan
from tersely.json_value import Json
from tersely.planning.plan import Plan

RATIOS = (0.25, 0.5, 0.75)
"""The sparse ratios that are tried by default."""

BITS = (8, 4, 2)
"""The bit widths of weights that are tried by default."""

_INTEGER = re.compile(r"u?int(?!32)[0-9]+\Z")  # int32 is the type of accumulators


@attrs.frozen
class Level:
    """A setting of one unit.

    Attributes:
        key: ``sparse_ratio``, ``bits``, or ``as_written`` for targets with neither.
        value: the ratio or the number of bits; 0 for ``as_written``.
    """

    key: Literal["sparse_ratio", "bits", "as_written"]
    value: float = 0

    def __str__(self) -> str:
        return spell_level(self.key, self.value)


def spell_level(key: str, value: float) -> str:
    """Return the text of a level.

    Args:
        key: ``sparse_ratio``, ``bits``, or ``as_written``.
        value: the ratio or the number of bits.
    """
    if key == "sparse_ratio":
        return f"{value:g} sparse"
    return f"{value:g} bits" if key == "bits" else "as written"


@attrs.frozen(kw_only=True)
class Unit:
    """Targets of a stage that change only together.

    Attributes:
        stage: index of the stage in the recipe.
        method: pruning or quantization.
        targets: the targets, in the order of the plan.
        levels: the levels they can take, the mildest first.
        label: a name that is unique among the units of the method, for people.
    """

    stage: int
    method: Method
    targets: tuple[TargetPlan, ...] = attrs.field(repr=False)
    levels: tuple[Level, ...]
    label: str

    @property
    def key(self) -> str:
        """A name that is unique among all units, for files."""
        return f"{self.method} of {self.label}"

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of its targets, in the order of the plan."""
        return tuple(dict.fromkeys(target.module for target in self.targets))


def units_of(
    plan: Plan, *, ratios: Sequence[float] = RATIOS, bits: Sequence[int] = BITS
) -> tuple[Unit, ...]:
    """Return the units of a plan, in the order of the plan.

    The targets of one module form a unit, together with targets that follow their masks and members
    of the same dependency group.

    Args:
        plan: the plan of the whole recipe.
        ratios: the sparse ratios to try.
        bits: the bit widths of weights to try.
    """
    found: list[Unit] = []
    for number, stage in enumerate(plan.recipe.stages):
        if stage.method == "distillation":
            continue
        targets = [target for target in plan if target.stage == number]
        for group in _together(targets):
            levels = (*dict.fromkeys(_levels(group, ratios=ratios, bits=bits)),)
            if levels:
                label = _label(group)
                unit = Unit(
                    stage=number, method=stage.method, targets=group, levels=levels, label=label
                )
                found.append(unit)
    return tuple(_with_stages_in_labels(found))


def with_level(target: TargetPlan, level: Level) -> dict[str, Json]:
    """Return the keys of a target at a level of its unit.

    Args:
        target: a target of the unit.
        level: the level.
    """
    keys = _without_nulls(target.setting.to_dict())
    if level.key == "sparse_ratio" and _is_ranked_by_ratio(target):
        # A ratio of its own replaces a share of a budget and a threshold.
        for key in ("sparse_threshold", "global_group_id", "budget"):
            keys.pop(key, None)
        keys["sparse_ratio"] = level.value
    elif level.key == "bits" and _has_bits(target):
        family = "uint" if target.quantization.quant_dtype.startswith("u") else "int"
        keys["quant_dtype"] = f"{family}{level.value:g}"
    return keys


def _without_nulls(data: Mapping[str, Json]) -> dict[str, Json]:
    """Return a mapping without keys whose value is null, at any depth.

    Args:
        data: keys of a target.
    """
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if value is not None
    }


def _together(targets: Sequence[TargetPlan]) -> Iterator[tuple[TargetPlan, ...]]:
    """Yield the targets of each unit, in the order of their first targets."""
    root: dict[str, str] = {}

    def find(key: str) -> str:
        while root.setdefault(key, key) != key:
            key = root[key]
        return key

    for target in targets:
        for other in _ties(target):
            root[find(other)] = find(f"module {target.module}")
    groups: dict[str, list[TargetPlan]] = {}
    for target in targets:
        groups.setdefault(find(f"module {target.module}"), []).append(target)
    yield from (tuple(group) for group in groups.values())


def _ties(target: TargetPlan) -> Iterator[str]:
    if target.method != "pruning":
        return
    if target.align is not None:
        yield f"module {target.align.module_for(target.module)}"
    if target.pruning.dependency_group_id is not None:
        yield f"group {target.pruning.dependency_group_id}"


def _levels(
    targets: Iterable[TargetPlan], *, ratios: Sequence[float], bits: Sequence[int]
) -> Iterator[Level]:
    targets = tuple(targets)
    if any(map(_is_ranked_by_ratio, targets)):
        yield from (Level("sparse_ratio", ratio) for ratio in sorted(ratios))
    elif any(map(_has_bits, targets)):
        signed = any(target.quantization.quant_dtype.startswith("int") for target in targets)
        least = 2 if signed else 1
        yield from (Level("bits", one) for one in sorted(bits, reverse=True) if one >= least)
    elif any(target.method == "quantization" or target.align is None for target in targets):
        yield Level("as_written")


def _is_ranked_by_ratio(target: TargetPlan) -> bool:
    if target.method != "pruning" or target.align is not None:
        return False
    return target.blocks is None or target.blocks.keep is None


def _has_bits(target: TargetPlan) -> bool:
    if target.method != "quantization" or target.kind not in ("parameter", "buffer"):
        return False
    return _INTEGER.match(target.quantization.quant_dtype) is not None


def _label(targets: Sequence[TargetPlan]) -> str:
    ranked = [target.module for target in targets if target.align is None] or [targets[0].module]
    names = tuple(dict.fromkeys(ranked))
    first = names[0] or "the model"
    return first if len(names) == 1 else f"{first} +{len(names) - 1}"


def _with_stages_in_labels(units: Sequence[Unit]) -> Iterator[Unit]:
    """Add the stage to labels that several units of a method would share."""
    labels: set[tuple[Method, str]] = set()
    for unit in units:
        label = unit.label
        if (unit.method, label) in labels:
            label = f"{label}, stage {unit.stage + 1}"
        labels.add((unit.method, label))
        yield attrs.evolve(unit, label=label)
