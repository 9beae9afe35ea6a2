"""Magnitude pruning.

Han, Pool, Tran and Dally, Learning both Weights and Connections for Efficient Neural Networks,
NIPS 2015, section 3.1 (connections below a threshold are removed).
"""

from __future__ import annotations

from torch import Tensor

import tersely
from tersely.contracts import MakesNewScores, ScoresBlocks
from tersely_pruning.block_norm import block_norm


class Level(MakesNewScores, ScoresBlocks):
    """Ranks by magnitude, by default single elements.

    Departs from the paper: a larger block ranks by the sum of its magnitudes, and the limit is a
    ratio or a threshold of the config, not a multiple of the layer's standard deviation.
    """

    def block_scores(self, tensor: Tensor, blocks: tersely.Blocks) -> Tensor:
        """Return the sum of magnitudes in every block.

        Args:
            tensor: any shape, float; read only.
            blocks: which elements make one block.

        Returns:
            Shape (blocks along each dimension), float, weight units.
        """
        return block_norm(tensor, blocks, 1)
