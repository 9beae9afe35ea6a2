"""Network trimming: neurons that are mostly zero are pruned first.

Hu, Peng, Tai and Tang, Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient
Deep Architectures, arXiv 1607.03250, 2016, equation 1: APoZ, the average percentage of zeros of a
channel after its ReLU, over all samples and positions.
"""

from __future__ import annotations

from torch import Tensor

import tersely
from tersely.contracts import ObservesOutputs
from tersely_pruning.per_block import score_dtype
from tersely_pruning.per_channel import (
    channels_first,
    count_per_channel,
    observed_by,
    scores_of_blocks,
)


class Apoz(ObservesOutputs):
    """Ranks output channels by how often they are positive.

    Departs from the paper: the module is assumed to be followed by a ReLU, channels are masked to a
    ratio rather than by their distance from the layer's mean, and the user's loop decides how
    masking and retraining alternate.
    """

    def observe_output(self, outputs: Tensor, target: tersely.PruningTarget) -> dict[str, Tensor]:
        """Return what one call of the module adds to the counts.

        Args:
            outputs: any shape with the batch in front.
            target: the target that makes them.

        Returns:
            ``zeros``: shape (channels,), int64, the number of values at or below zero; ``values``:
            0-dim, int64, the number of values in one channel.

        Raises:
            ValueError: the outputs are not finite, or their channels are not the target's.
        """
        rows = channels_first(outputs, target)
        return {"zeros": (rows <= 0).sum(1), "values": count_per_channel(rows)}

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return 1 - APoZ of the channels of every block.

        Args:
            target: the tensor to rank.

        Returns:
            Shape (blocks along each dimension), float, from 0 to 1.

        Raises:
            SessionError: there was no calibration.
            PlanError: every block extends over all channels.
        """
        observed = observed_by(target)
        positive = observed["values"] - observed["zeros"]
        dtype = score_dtype(target.tensor)
        return scores_of_blocks(positive.to(dtype) / observed["values"], target)
