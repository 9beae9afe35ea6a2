"""N:M sparsity: N kept of every M neighbours along the input dimension.

Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378, 2021, section 3 (2:4).
"""

from __future__ import annotations

import tersely


class NOfM:
    """The granularity ``"2:4"``.

    Args:
        value: ``N:M``, with N below M.
    """

    def __init__(self, *, value: str) -> None:
        self.value = value
        self.kept, self.run = (int(part) for part in value.split(":"))

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Decide on elements, N of M kept in every run along the input dimension.

        Args:
            shape: the tensor's shape; for an input or output with the batch in dimension 0.
            target: any target; runs of an input or output are along its channels.

        Returns:
            Elements as blocks, runs of M as scopes, and N to keep.

        Raises:
            ValueError: N is not below M, there is no input dimension, or M does not divide it.
        """
        if self.kept >= self.run:
            raise ValueError(
                f'"{self.value}" keeps {self.kept} of every {self.run}, which masks nothing; write '
                'N:M with N below M, as in "2:4"'
            )
        is_activation = target.kind in ("input", "output")
        rank = len(shape)
        dim = target.channel_dim % rank if is_activation and rank else target.input_dim
        if dim >= rank or (is_activation and dim == 0):
            raise ValueError(
                f'"{self.value}" counts along the input dimension, and {target.name} of shape '
                f"{list(shape)} has none; leave it out of target_names or write another granularity"
            )
        if shape[dim] % self.run:
            raise ValueError(
                f'"{self.value}" needs a multiple of {self.run} neighbours, and dimension {dim} of '
                f"{target.name} has {shape[dim]} (shape {list(shape)})"
            )
        # The batch is one block: a mask cannot depend on which samples form a batch.
        batch = (-1,) if is_activation else ()
        size = batch + (1,) * (rank - len(batch))
        scope = tuple(self.run if at == dim else entry for at, entry in enumerate(size))
        return tersely.Blocks(size=size, scope=scope, keep=self.kept)
