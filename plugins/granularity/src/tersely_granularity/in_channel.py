"""One block for each index of a weight's dimension 1."""

from __future__ import annotations

import tersely

DIMENSION = 1


class InChannel:
    """The granularity ``in_channel``."""

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return one block for each index of dimension 1.

        Args:
            shape: the tensor's shape.
            target: a parameter or buffer.

        Returns:
            Size 1 in dimension 1, -1 elsewhere.

        Raises:
            ValueError: the target is an input or output, or has no dimension 1.
        """
        if target.kind in ("input", "output"):
            raise ValueError(
                f"in_channel divides parameters, and {target.name} is an {target.kind}; write "
                "per_channel"
            )
        if len(shape) <= DIMENSION:
            raise ValueError(
                f"in_channel divides dimension {DIMENSION}, and {target.name} has shape "
                f"{list(shape)}; write out_channel"
            )
        return tersely.Blocks(
            size=tuple(1 if dim == DIMENSION else -1 for dim in range(len(shape)))
        )
