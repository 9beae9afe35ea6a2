"""Filter pruning via the geometric median: filters close to all others are pruned first.

He, Liu, Wang, Hu and Yang, Filter Pruning via Geometric Median for Deep Convolutional Neural
Networks Acceleration, CVPR 2019, equations 5 and 6: the filters with the smallest sum of
distances to all filters of the layer.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

import tersely

_ROWS_AT_A_TIME = 256


class Fpgm:
    """Ranks every block by the sum of its Euclidean distances to all blocks of its tensor."""

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return the sum of distances to all other blocks.

        Args:
            target: the tensor to rank.

        Returns:
            Shape (blocks along each dimension), float, weight units.

        Raises:
            PlanError: blocks are single elements of a tensor with several dimensions.
        """
        size = target.blocks.size
        if len(size) > 1 and all(block == 1 for block in size):
            raise tersely.PlanError(
                f"{target.name}: fpgm compares blocks as vectors, and its granularity makes every "
                "element a block; write out_channel or a block of more than one element",
                **target.plan.place,
            )
        blocks = tersely.to_blocks(target.tensor.detach(), size)
        distances = sum_of_distances(blocks.reshape(-1, blocks.shape[-1]))
        return distances.reshape(blocks.shape[:-1])


def sum_of_distances(vectors: Tensor) -> Tensor:
    """Return the sum of each vector's Euclidean distances to all vectors.

    Squared distances come from a Gram matrix, |u|^2 + |v|^2 - 2 u.v, which is computed tile by
    tile, and only once for two tiles that are each other's transpose. The mean of the vectors is
    subtracted first, which keeps distances and reduces cancellation.

    Args:
        vectors: shape (vectors, length), float; read only.

    Returns:
        Shape (vectors,); float32, or float64 where the vectors are.
    """
    dtype = torch.float64 if vectors.dtype == torch.float64 else torch.float32
    vectors = vectors.to(dtype)
    if not len(vectors):
        return vectors.new_empty(0)
    vectors = vectors - vectors.mean(0)
    squares = torch.linalg.vector_norm(vectors, dim=1).square_()
    sums = torch.zeros_like(squares)
    parts = [
        slice(start, start + _ROWS_AT_A_TIME) for start in range(0, len(vectors), _ROWS_AT_A_TIME)
    ]
    for rows, columns in itertools.combinations_with_replacement(parts, 2):
        distances = torch.addmm(squares[None, columns], vectors[rows], vectors[columns].T, alpha=-2)
        distances.add_(squares[rows, None])
        if rows is columns:
            # Rounding leaves noise in the distance of a vector from itself.
            distances.diagonal().zero_()
        distances.clamp_(min=0).sqrt_()
        sums[rows] += distances.sum(1)
        if rows is not columns:
            sums[columns] += distances.sum(0)
    return sums
