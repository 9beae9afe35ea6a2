"""Filter pruning by L2 norm.

He, Kang, Dong, Fu and Yang, Soft Filter Pruning for Accelerating Deep Convolutional Neural
Networks, IJCAI 2018, equation 2 with p = 2.
"""

from __future__ import annotations

from torch import Tensor

import tersely
from tersely.contracts import ScoresBlocks
from tersely_pruning.block_norm import block_norm


class L2Norm(ScoresBlocks):
    """Ranks by the Euclidean norm, by default of every output channel.

    Departs from the paper: masked filters stay masked until masks are computed again.
    """

    def block_scores(self, tensor: Tensor, blocks: tersely.Blocks) -> Tensor:
        """Return the L2 norm of every block.

        Args:
            tensor: any shape, float; read only.
            blocks: which elements make one block.

        Returns:
            Shape (blocks along each dimension), float, weight units.
        """
        return block_norm(tensor, blocks, 2)
