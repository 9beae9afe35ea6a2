"""What arithmetic needs to know of a tensor to quantize."""

from __future__ import annotations

from typing import Literal, Protocol

from tersely.arithmetic.blocks import Blocks


class QuantizedGrid(Protocol):
    """The values that a tensor can take, and which of its elements share a scale.

    `tersely.QuantizationTarget` is one.
    """

    @property
    def name(self) -> str:
        """The target's full name, for errors."""
        ...

    @property
    def quant_min(self) -> int:
        """The smallest integer."""
        ...

    @property
    def quant_max(self) -> int:
        """The largest integer."""
        ...

    @property
    def dtype(self) -> str:
        """The quantized type as written, such as ``int8``."""
        ...

    @property
    def scheme(self) -> Literal["symmetric", "affine"]:
        """Whether the range is symmetric around zero."""
        ...

    @property
    def blocks(self) -> Blocks:
        """Which elements share a scale."""
        ...
