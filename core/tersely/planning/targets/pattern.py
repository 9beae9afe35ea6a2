"""What may accompany a granularity that keeps N of every M neighbours (rules B1.4 and B6.5)."""

from __future__ import annotations

import math
from fractions import Fraction

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.settings import PruningSetting


def pattern_problems(setting: PruningSetting, blocks: Blocks | None) -> tuple[str, ...]:
    """Return what of a target's setting contradicts the number of blocks its granularity keeps.

    Args:
        setting: the target's setting.
        blocks: its blocks, or None while its shape is unknown.

    Returns:
        One text for each key in the way; nothing where the granularity fixes no number.
    """
    if blocks is None or blocks.keep is None or blocks.scope is None:
        return ()
    scope = math.prod(value for value in blocks.scope if value > 0)
    masked = scope - blocks.keep
    shown = f"granularity {setting.granularity!r}"
    problems = []
    asked = setting.sparse_ratio
    if asked is not None and not math.isclose(asked, masked / scope):
        problems.append(
            f"{shown} masks exactly {masked / scope:g}, but sparse_ratio is {asked:g}; remove "
            "sparse_ratio or make them equal"
        )
    for key, bound, is_crossed in (
        ("min_sparse_ratio", setting.min_sparse_ratio, int.__gt__),
        ("max_sparse_ratio", setting.max_sparse_ratio, int.__lt__),
    ):
        if is_crossed(_count(bound, scope), masked):
            problems.append(
                f"{shown} masks exactly {masked / scope:g}, which {key} {bound:g} does not allow; "
                f"remove {key}"
            )
    problems.extend(
        f"{shown} fixes how many are kept among neighbours, so {key!r} has no meaning; remove it"
        for key, value in (
            ("sparse_threshold", setting.sparse_threshold),
            ("global_group_id", setting.global_group_id),
            ("dependency_group_id", setting.dependency_group_id),
        )
        if value is not None
    )
    return tuple(problems)


def _count(ratio: float, scope: int) -> int:
    # The decimal number as written, as in rule B1.1.
    return math.floor(Fraction(repr(float(ratio))) * scope)
