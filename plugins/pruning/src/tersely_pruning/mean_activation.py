"""Pruning by mean activation: channels that are small on average are pruned first.

Molchanov, Tyree, Karras, Aila and Kautz, Pruning Convolutional Neural Networks for Resource
Efficient Inference, ICLR 2017, section 2.2, criterion "activation": the mean of a feature map
after its ReLU, over all samples and positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

import tersely
from tersely.contracts import ObservesOutputs
from tersely_pruning.per_channel import (
    channels_first,
    count_per_channel,
    observed_by,
    scores_of_blocks,
)


class MeanActivation(ObservesOutputs):
    """Ranks output channels by their mean after a ReLU.

    Departs from the paper: the module is assumed to be followed by a ReLU, and scores are not
    normalized layer by layer, since by default every layer meets the ratio on its own.
    """

    def observe_output(self, outputs: Tensor, target: tersely.PruningTarget) -> dict[str, Tensor]:
        """Return what one call of the module adds to the sums.

        Args:
            outputs: any shape with the batch in front.
            target: the target that makes them.

        Returns:
            ``total``: shape (channels,), float, activation units; ``values``: 0-dim, int64, the
            number of values in one channel.

        Raises:
            ValueError: the outputs are not finite, or their channels are not the target's.
        """
        rows = channels_first(outputs, target)
        dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
        return {"total": rows.relu().sum(1, dtype=dtype), "values": count_per_channel(rows)}

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        """Return the mean activation of the channels of every block.

        Args:
            target: the tensor to rank.

        Returns:
            Shape (blocks along each dimension), float, activation units.

        Raises:
            SessionError: there was no calibration.
            PlanError: every block extends over all channels.
        """
        observed = observed_by(target)
        return scores_of_blocks(observed["total"] / observed["values"], target)
