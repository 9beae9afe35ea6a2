"""Quantizers whose values are not integer steps around an integer zero point.

The values of a target's integers ``q``, with one scale ``s`` per block:

=======================  ========================  ==============================================
declared                 value                     integer of ``x``
=======================  ========================  ==============================================
neither                  ``(q - z) * s``           ``clamp(round(x / s) + z)``, ``z`` an integer
`UsesFloatZeroPoints`    ``(q - z) * s``           ``clamp(round(x / s + z))``, ``z`` any number
`UsesLevels`             ``levels[q] * s``         the index of the level nearest to ``x / s``
=======================  ========================  ==============================================
"""

from __future__ import annotations

from tersely.contracts.abilities import Ability


class UsesFloatZeroPoints(Ability):
    """A quantizer whose zero points are floats, between integers or out of their range.

    This holds for targets with an integer type and the affine scheme: the zero points of the
    `tersely.QParams` that its ``choose``, ``solve`` or ``meaning`` returns are any finite numbers,
    of a float dtype. Zero need not be on the grid. Zero points of other targets are integers, so if
    the symmetric scheme makes no sense, state ``default_scheme="affine"``.

    Attributes:
        float_zero_points: False, for example by an option, for integer zero points.
    """

    float_zero_points: bool = True


class UsesLevels(Ability):
    """A quantizer with a table of levels, such as the quantiles of a normal distribution.

    The `tersely.QParams` that its ``choose`` or ``solve`` returns may hold ``levels``, shape
    (levels,), float, ascending, in units of the scale. Their type is unsigned and counts them from
    0: ``uint4`` for 16. The core rounds to the nearest level, and to the lower one in a tie.

    Attributes:
        level_tables: False, for example by an option, for integer steps.
    """

    level_tables: bool = True
