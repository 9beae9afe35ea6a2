"""Quantizers whose values lie elsewhere than on a grid of whole steps around an integer zero.

What a target's integers ``q`` become, with one scale ``s`` per block:

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
    """A quantizer whose zero points are floats, between integers and outside of them too.

    This holds for targets with an integer type and the affine scheme: the zero points of the
    `tersely.QParams` that its ``choose``, ``solve`` or ``meaning`` returns are any finite numbers,
    of a float dtype. Zero itself need not be a value of the grid. Zero points of other targets
    are whole, so where the symmetric scheme makes no sense, state ``default_scheme="affine"``.

    Attributes:
        float_zero_points: False, perhaps by an option, for whole ones.
    """

    float_zero_points: bool = True


class UsesLevels(Ability):
    """A quantizer with a table of levels, such as the quantiles of a normal distribution.

    The `tersely.QParams` that its ``choose`` or ``solve`` returns may hold ``levels``, shape
    (levels,), float, ascending, in units of the scale. Their type is unsigned and counts them from
    0: ``uint4`` for 16. The core rounds to the nearest level, to the lower one of two.

    Attributes:
        level_tables: False, perhaps by an option, for whole steps.
    """

    level_tables: bool = True
