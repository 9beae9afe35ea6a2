"""How many blocks a ratio means: exact counts, without floating-point products."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from tersely.masking.member import Ratio


def as_fraction(ratio: Ratio) -> Fraction:
    """Return the number as it is written: 0.29 is 29/100, not its nearest binary fraction.

    Args:
        ratio: a float, or a Fraction from a schedule.
    """
    return ratio if isinstance(ratio, Fraction) else _written(float(ratio))


@lru_cache(maxsize=1024)
def _written(ratio: float) -> Fraction:
    # Reading a number takes longer than all else that is decided on a small target, and a config
    # has few of them.
    return Fraction(repr(ratio))


def count_masked(ratio: Ratio, total: int) -> int:
    """Return floor(ratio * total), computed exactly.

    Args:
        ratio: the share to mask, in [0, 1].
        total: how many there are.
    """
    return math.floor(as_fraction(ratio) * total)


def bound_count(count: int, total: int, *, minimum: Ratio, maximum: Ratio) -> int:
    """Move a count of masked blocks into the bounds, which count as ratios do.

    Args:
        count: blocks that would be masked.
        total: how many there are.
        minimum: the share that is masked at least.
        maximum: the share that is masked at most, no less than the minimum.
    """
    return min(max(count, count_masked(minimum, total)), count_masked(maximum, total))
