"""Filter pruning by L1 norm.

Li, Kadav, Durdanovic, Samet and Graf, Pruning Filters for Efficient ConvNets, ICLR 2017,
section 3.1: s_j = sum over channels and kernel of |F_ij|.
"""

from __future__ import annotations

from torch import Tensor

import tersely
from tersely.contracts import ScoresBlocks
from tersely_pruning.block_norm import block_norm


class L1Norm(ScoresBlocks):
    """Ranks by the sum of magnitudes, by default of every output channel."""

    def block_scores(self, tensor: Tensor, blocks: tersely.Blocks) -> Tensor:
        """Return the L1 norm of every block.

        Args:
            tensor: any shape, float; read only.
            blocks: which elements make one block.

        Returns:
            Shape (blocks along each dimension), float, weight units.
        """
        return block_norm(tensor, blocks, 1)
