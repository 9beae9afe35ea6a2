"""Random pruning, the baseline for every other criterion.

Gale, Elsen and Hooker, The State of Sparsity in Deep Neural Networks, 2019, section 3, use random
pruning as the baseline; here it is one-shot, and seeded.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

import tersely
from tersely_pruning.per_block import block_counts


class Random:
    """Ranks by numbers drawn from the seed and the target's name, by default for every element.

    The same seed gives the same masks on every device and in every process, independent of other
    targets; while sparsity grows along a schedule, masked blocks stay masked.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return a number in [0, 1) for every block.

        Args:
            target: the tensor to rank.

        Returns:
            Shape (blocks along each dimension), float32, no unit.
        """
        # Drawn on the CPU: generators of other devices draw different numbers from the same seed.
        # The generator reads 32 bits of its seed, so ours is part of a checksum.
        generator = torch.Generator().manual_seed(zlib.crc32(target.name.encode(), self.seed))
        return torch.rand(block_counts(target), generator=generator).to(target.tensor.device)
