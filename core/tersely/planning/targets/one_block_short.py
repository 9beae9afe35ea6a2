"""Ratios that mask one block less than their author meant: 0.166666 of 12 rows is one row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from tersely.arithmetic.blocks import count_blocks, resolve_size
from tersely.arithmetic.numbered import uneven_sizes
from tersely.contracts.target_plan import TargetPlan

_CLOSE = Fraction(1, 10**6)
_COUNTED = 9_999
"""Blocks above which one more is closer to any ratio than people mean when they write one."""


def blocks_just_missed(alike: Sequence[TargetPlan]) -> dict[str, list[TargetPlan]]:
    """Return what to say of ratios within 1e-6 of one more block, each with its targets.

    Args:
        alike: targets of one setting. Global groups are left out, since they count elements.
    """
    setting = alike[0].pruning
    if setting.sparse_ratio is None or setting.global_group_id is not None:
        return {}
    ratio = float(setting.sparse_ratio)
    found: dict[str, list[TargetPlan]] = {}
    # Targets of one setting share an object of blocks for each shape.
    remarks: dict[tuple[int, tuple[int, ...] | None], str] = {}
    for target in alike:
        key = id(target.blocks), target.shape
        if key not in remarks:
            remarks[key] = _remark(ratio, _count(target))
        if remarks[key]:
            found.setdefault(remarks[key], []).append(target)
    return found


def _remark(ratio: float, count: int) -> str:
    exact = Fraction(repr(ratio))
    masked = math.floor(exact * count)
    if not masked < count <= _COUNTED or Fraction(masked + 1, count) - exact > _CLOSE:
        return ""
    meant = Fraction(masked + 1, count)
    return (
        f"sparse_ratio {ratio} masks {masked} of {count} blocks, just below {masked + 1}; to mask "
        f"{masked + 1} write '{meant.numerator}/{meant.denominator}'"
    )


def _count(target: TargetPlan) -> int:
    """In how many blocks the ratio is counted, or 0 where that is not known or has no effect."""
    blocks, shape = target.blocks, target.shape
    if blocks is None or blocks.keep is not None or not shape or target.align is not None:
        return 0
    if uneven_sizes(blocks.size) is not None:
        return 0  # their elements are counted
    if blocks.scope is not None:
        size = resolve_size(blocks.size, shape)
        return math.prod(resolve_size(blocks.scope, shape)) // math.prod(size)
    return math.prod(count_blocks(blocks.size, shape)) // target.pruning.runs
