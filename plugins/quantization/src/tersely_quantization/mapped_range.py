"""The usual scale: the range of a target, mapped onto its integers."""

from __future__ import annotations

import tersely


class MapsRange:
    """Maps a range onto the integers as the specification does (rules Q2)."""

    # The function itself, by which it is recognized that small targets can be stacked.
    choose = staticmethod(tersely.choose_qparams)
