"""One block for each token: a row along the last dimension of an activation."""

from __future__ import annotations

import tersely


class PerToken:
    """The granularity ``per_token``.

    Yao et al., ZeroQuant: Efficient and Affordable Post-Training Quantization for Large-Scale
    Transformers, NeurIPS 2022, section 4.1. Every sample and every position has a scale of its own,
    so this is for scales that are computed at every call; all samples share one mask.
    """

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return one block for each row along the last dimension.

        Args:
            shape: the activation's shape, with the batch in dimension 0.
            target: an input or output.

        Returns:
            Size -1 in the last dimension, 1 elsewhere.

        Raises:
            ValueError: the target is pruned, or has no dimension besides the batch.
        """
        if target.method == "pruning":
            raise ValueError(
                "per_token keeps samples apart, and all samples share one mask; write per_channel"
            )
        if len(shape) < 2:  # noqa: PLR2004  # the batch and what it holds
            raise ValueError(f"per_token needs a dimension besides the batch, found {list(shape)}")
        return tersely.Blocks(size=(*(1,) * (len(shape) - 1), -1))
