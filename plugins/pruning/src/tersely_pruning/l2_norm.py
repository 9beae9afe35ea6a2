"""Filter pruning by L2 norm.

He, Kang, Dong, Fu and Yang, Soft Filter Pruning for Accelerating Deep Convolutional Neural
Networks, IJCAI 2018, equation 2 with p = 2.
"""

from __future__ import annotations

from torch import Tensor

import tersely
from tersely_pruning.block_norm import block_norm


class L2Norm:
    """Ranks by the Euclidean norm, by default of every output channel.

    Departs from the paper: masked filters stay masked until masks are computed again.
    """

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return the L2 norm of every block.

        Args:
            target: the tensor to rank.

        Returns:
            Shape (blocks along each dimension), float, weight units.
        """
        return block_norm(target.tensor, target.blocks, 2)
