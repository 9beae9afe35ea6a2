"""What a granularity plugin implements."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.target_plan import TargetPlan


@runtime_checkable
class Granularity(Protocol):
    """A granularity."""

    def blocks(self, shape: tuple[int, ...], target: TargetPlan) -> Blocks:
        """Return how a tensor is cut.

        It depends on the shape, the setting and the module type alone: planning asks once for all
        targets that agree in these.

        Args:
            shape: the tensor's shape; for an input or output, with the batch in dimension 0.
            target: what the config says of it.

        Raises:
            ValueError: the shape cannot be cut this way; the text says why.
        """
        ...
