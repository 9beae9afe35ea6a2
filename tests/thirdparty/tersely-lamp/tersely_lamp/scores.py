"""LAMP: magnitudes made comparable between layers.

Lee, Park, Mo, Ahn and Shin, Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021,
equation 2: with the weights of a layer in ascending order of magnitude, the score of weight u is
W[u]^2 divided by the sum of W[v]^2 over all v from u on.
"""

import torch

import tersely


class Lamp:
    """Ranks weights by how much of what would be left of their layer they are."""

    new_scores = True

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        """Return scores of the tensor's shape in (0, 1]; the largest weight of a layer has 1."""
        squares = target.tensor.detach().double().square().flatten()
        ordered, place = squares.sort(stable=True)
        left = ordered.flip(0).cumsum(0).flip(0)
        scores = torch.empty_like(squares)
        scores[place] = ordered / left.clamp_min(torch.finfo(torch.float64).tiny)
        return scores.view(target.tensor.shape)
