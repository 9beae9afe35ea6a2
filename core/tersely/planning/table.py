"""A plan as a table for people."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tersely.contracts.target_plan import TargetPlan
from tersely.document.recipe import Stage
from tersely.planning.data import PlanData
from tersely.text_table import Column, TextTable, ruled

_ROWS = 400  # a longer table is of no use; to_dict() has all rows
_HEADINGS = ("module", "target", "shape", "algorithm", "setting", "decided by")
_SHOWN_KEYS = (
    "sparse_ratio",
    "sparse_threshold",
    "min_sparse_ratio",
    "max_sparse_ratio",
    "global_group_id",
    "dependency_group_id",
    "budget",
    "internal_metric_block",
    "dependency_parts",
    "granularity",
    "quant_dtype",
    "quant_scheme",
    "lambda",
    "link",
    "apply_method",
    "mask_value",
    "projection",
)
_USUAL = {"granularity": ("default",), "apply_method": ("mul", "clamp_round")}


def plan_table(plan: PlanData) -> str:
    """Return a plan as text: one row per target, then what matched nothing, lost or was skipped.

    Args:
        plan: the plan to show.
    """
    return "\n".join([*plan_rows(plan, _ROWS), *remarks(plan)])


def plan_rows(plan: PlanData, limit: int | None = None) -> list[str]:
    """Return a plan's targets as the lines of a table.

    Args:
        plan: the plan to show.
        limit: how many targets to show at most, or None for all.
    """
    shown = plan.targets if limit is None else plan.targets[:limit]
    table = TextTable(
        columns=tuple(Column(heading=heading) for heading in _HEADINGS),
        rows=tuple(_cells(target) for target in shown),
    )
    lines = ["", *ruled(table)]
    if len(shown) < len(plan.targets):
        more = len(plan.targets) - len(shown)
        lines.append(f"... and {more} more targets (to_dict() has them all)")
    return lines


def _cells(target: TargetPlan) -> tuple[str, ...]:
    shape = "" if target.shape is None else " x ".join(map(str, target.shape)) or "scalar"
    name = target.module or "(root)"
    if target.shared_with:
        name += f" (= {', '.join(target.shared_with)})"
    return (name, target.target, shape, target.algorithm, describe(target), str(target.origin))


def describe(target: TargetPlan) -> str:
    """Return the keys of a target that differ from the usual, in one line.

    Args:
        target: any planned target.
    """
    align = target.align
    if align is not None:
        return f"aligned with {align.source_name(target.module)} along {list(align.dims)}"
    shown = []
    keys = target.setting.to_dict()
    for key in _SHOWN_KEYS:
        value = keys.get(key)
        if value is None or value in _USUAL.get(key, ()):
            continue
        shown.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    return ", ".join(shown) or "nothing asked"


def _period(stage: Stage) -> str:
    name = f"{stage.path} ({stage.algorithm})" if stage.algorithm else stage.path
    begin = f"from step {stage.begin}" if stage.begin else "from the beginning"
    end = "to the end" if stage.end is None else f"to step {stage.end}"
    sparse = f", fully sparse from step {stage.schedule.end} on" if stage.schedule else ""
    return f"{name}: {begin} {end}{sparse}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def remarks(plan: PlanData, *, skipped: bool = True) -> Iterator[str]:
    """Yield what a plan counts, and what matched nothing, lost, or is worth a look.

    Args:
        plan: any plan.
        skipped: whether targets that do not exist are listed.
    """
    yield ""
    modules = _count(len(plan.selected), "selected module")
    yield f"{_count(len(plan.targets), 'target')} in {modules}"
    stages = plan.recipe.stages
    is_divided = any(stage.begin or stage.end is not None for stage in stages)
    for heading, remarks in (
        ("periods", [_period(stage) for stage in stages] if is_divided else ()),
        ("matched nothing", plan.unmatched),
        ("configured twice", plan.shadowed),
        ("skipped", plan.skipped if skipped else ()),
        ("hints", plan.hints),
    ):
        if remarks:
            yield f"{heading}:"
            yield from (f"  {remark}" for remark in remarks)
