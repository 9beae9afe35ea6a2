"""Groups of neighbours along the input dimension, which share one decision or one scale."""

from __future__ import annotations

from collections.abc import Mapping

import tersely


class Group:
    """The granularity ``{"group": 128}``.

    Args:
        value: ``group``: the number of neighbours in a group.
    """

    def __init__(self, *, value: Mapping[str, int]) -> None:
        self.length = value["group"]

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Divide every output channel into groups of inputs.

        Args:
            shape: the tensor's shape; for an input or output with the batch in dimension 0.
            target: any target; groups of an input or output are along its channels.

        Returns:
            The group's length in the input dimension, 1 in the output dimension and -1 elsewhere.

        Raises:
            ValueError: there is no input dimension, or its length is not a multiple of the group.
        """
        rank = len(shape)
        is_activation = target.kind in ("input", "output")
        dim = target.channel_dim % rank if is_activation and rank else target.input_dim
        if max(dim, 0 if is_activation else target.output_dim) >= rank or (
            is_activation and not dim
        ):
            raise ValueError(
                f"a group lies along the input dimension, and {target.name} of shape {list(shape)} "
                "has none; leave it out of target_names or write another granularity"
            )
        if shape[dim] % self.length:
            raise ValueError(
                f"groups of {self.length} do not divide dimension {dim} of {target.name}, which "
                f"has {shape[dim]} elements (shape {list(shape)})"
            )
        size = [-1] * rank
        if not is_activation:
            size[target.output_dim] = 1
        size[dim] = self.length
        return tersely.Blocks(size=tuple(size))
