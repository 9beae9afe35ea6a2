"""Ratios that are written as fractions: ``1/6`` is exact, no decimal is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from fractions import Fraction

from tersely.document.entries import Place
from tersely.json_value import Json

RATIOS = ("sparse_ratio", "min_sparse_ratio", "max_sparse_ratio")
"""The keys whose values may be fractions."""

_FRACTION = re.compile(r"\s*(\d{1,4})\s*/\s*(\d{1,4})\s*")


def fill_fractions(levels: Iterable[Place]) -> None:
    """Put the number in the place of every ratio that is written as a fraction.

    Args:
        levels: entries and the settings of their targets; their data is changed.
    """
    for level in levels:
        for key in RATIOS:
            number = _number_of(level.data.get(key))
            if number is not None:
                level.data[key] = number


def _number_of(value: Json) -> float | None:
    """Return the smallest float not below a fraction, or None for anything else.

    Counts are rounded down, so the nearest float would lose a block if it is below. The
    float exceeds the fraction by less than 1e-16, which affects no count of blocks below 1e11.
    """
    match = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[2]) == 0:
        return None
    exact = Fraction(int(match[1]), int(match[2]))
    number = float(exact)
    return math.nextafter(number, math.inf) if Fraction(repr(number)) < exact else number
