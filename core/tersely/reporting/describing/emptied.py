"""Targets of which nothing is kept, and what prevents that (rule B2.5)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from tersely.contracts.target_plan import TargetPlan
from tersely.planning.plan import Plan
from tersely.reporting.describing.expectation import count_target_blocks
from tersely.reporting.report import SparsityWarning

_SHOWN = 10


def emptied_targets(plan: Plan, achieved: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Return what to say of every target of which nothing is kept.

    Args:
        plan: the plan.
        achieved: the masked fraction of every target that has a mask.

    Returns:
        The target's full name -> one sentence that ends with what prevents it.
    """
    return {
        target.name: f"{target.name}: nothing of it is kept; {_advice(target)}"
        for target in plan.targets
        if target.method == "pruning"
        and achieved.get(target.module, {}).get(target.target, 0.0) >= 1
    }


def warn_of_emptied(
    plan: Plan,
    achieved: Mapping[str, Mapping[str, float]],
    *,
    known: frozenset[str],
    is_by_hand: bool,
) -> frozenset[str]:
    """Warn once of each target of which nothing is kept.

    Args:
        plan: the plan.
        achieved: the masked fraction of every target that has a mask.
        known: the targets that were warned of and had nothing at the last change.
        is_by_hand: whether the user's own masks were just put in force.

    Returns:
        The targets of which nothing is kept now.
    """
    if not any(share >= 1 for shares in achieved.values() for share in shares.values()):
        return frozenset()
    found = emptied_targets(plan, achieved)
    fresh = [text for name, text in found.items() if name not in known]
    if fresh:
        lines = fresh[:_SHOWN]
        if is_by_hand:
            lines = [text.partition(";")[0] for text in lines]
            lines.append(
                "set_masks() has put this in force; if this is not intended, set masks that "
                "keep something"
            )
        if len(fresh) > _SHOWN:
            lines.append(f"... and {len(fresh) - _SHOWN} more")
        warnings.warn("\n".join(lines), SparsityWarning, stacklevel=4)
    return frozenset(found)


def _advice(target: TargetPlan) -> str:
    align = target.align
    if align is not None:
        module = align.module_for(target.module)
        source = f"{module}.{align.target_name}" if module else align.target_name
        return f"it follows {source}, whose max_sparse_ratio keeps something of both"
    blocks = count_target_blocks(target)
    if blocks == 1:
        return (
            "it is one block, which is masked or kept whole: choose a finer granularity, or leave "
            "it out with exclude_op_names"
        )
    if blocks is None:
        return "max_sparse_ratio, such as 0.9, keeps something of it"
    return (
        f"max_sparse_ratio: {_largest_ratio(blocks)} in its entry keeps at least one of its "
        f"{blocks} blocks"
    )


def _largest_ratio(blocks: int) -> float:
    """Return a short ratio by which all but one of some blocks are masked."""
    digits = 1
    while True:
        parts: int = 10**digits
        ratio = -(-(blocks - 1) * parts // blocks) / parts
        if ratio < 1:
            return ratio
        digits += 1
