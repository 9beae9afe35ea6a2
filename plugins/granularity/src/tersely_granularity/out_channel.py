"""One block for each index of a weight's dimension 0."""

from __future__ import annotations

import tersely

DIMENSION = 0


class OutChannel:
    """The granularity ``out_channel``."""

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return one block for each index of dimension 0.

        Args:
            shape: the tensor's shape.
            target: a parameter or buffer.

        Returns:
            Size 1 in dimension 0, -1 elsewhere.

        Raises:
            ValueError: the target is an input or output, or has no dimension 0.
        """
        if target.kind in ("input", "output"):
            raise ValueError(
                f"out_channel divides parameters, and {target.name} is an {target.kind}; write "
                "per_channel"
            )
        if len(shape) <= DIMENSION:
            raise ValueError(
                f"out_channel divides dimension {DIMENSION}, and {target.name} has shape "
                f"{list(shape)}; write default"
            )
        return tersely.Blocks(
            size=tuple(1 if dim == DIMENSION else -1 for dim in range(len(shape)))
        )
