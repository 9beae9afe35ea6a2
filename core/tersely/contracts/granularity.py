"""The protocol of granularities."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.target_plan import TargetPlan


@runtime_checkable
class Granularity(Protocol):
    """A granularity."""

    def blocks(self, shape: tuple[int, ...], target: TargetPlan) -> Blocks:
        """Return the blocks of a tensor.

        They depend only on the shape, the setting and the module type: planning asks once for all
        targets that agree in these.

        Args:
            shape: the tensor's shape; for an input or output, with the batch in dimension 0.
            target: the planned target.

        Raises:
            ValueError: the shape cannot be divided this way; the text says why.
        """
        ...
