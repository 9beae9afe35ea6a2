"""Scale and zero point with everything that says how they are read."""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QParams:
    """How one tensor is quantized.

    Attributes:
        scale: shape (blocks along each dimension) or 0-dim, float, value units per integer step.
        zero_point: scale's shape. Whole numbers: the integer that represents zero, and integers are
            ``clamp(round(x / scale) + zero_point)``. Of a float dtype: any number, and integers are
            ``clamp(round(x / scale + zero_point))``. Either way they are read as
            ``(integer - zero_point) * scale``.
        quant_min: the smallest integer.
        quant_max: the largest integer.
        dtype: the quantized type, such as ``int8``.
        scheme: ``symmetric`` or ``affine``.
        block_size: elements per block, or None for one scale for the tensor.
        levels: None, or a table of ascending values, shape (levels,), float, in scales: integers
            are indices into it, read as ``levels[integer] * scale``; the zero point counts for
            nothing.
    """

    scale: Tensor
    zero_point: Tensor
    quant_min: int
    quant_max: int
    dtype: str
    scheme: Literal["symmetric", "affine"]
    block_size: tuple[int, ...] | None = None
    levels: Tensor | None = None

    @property
    def has_float_zero_point(self) -> bool:
        """Whether the zero point is added before rounding: it is of a float dtype."""
        return self.zero_point.is_floating_point()

    def evolve(self, **changes: object) -> QParams:
        """Return a copy with some fields replaced."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # replace checks
