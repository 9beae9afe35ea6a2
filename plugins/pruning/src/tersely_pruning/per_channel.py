"""From the output channels of a module to the blocks of the tensor that produces them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import tersely
from tersely_pruning.per_block import block_counts


def channels_first(outputs: Tensor, target: tersely.PruningTarget) -> Tensor:
    """View a module's outputs as one row for each channel.

    Args:
        outputs: any shape with the batch in front; read only.
        target: the target that makes them.

    Returns:
        Shape (channels, values of one channel).

    Raises:
        ValueError: the outputs are not finite, or their channels are not the target's.
    """
    if not bool(outputs.isfinite().all()):
        raise ValueError(
            "the outputs of its module are not finite; check the batches and the model's weights"
        )
    channels = outputs.shape[target.plan.channel_dim]
    dim = _channel_dim(target)
    expected = target.tensor.shape[dim]
    if not expected or channels % expected:
        raise ValueError(
            f"its module has {channels} output channels and the tensor has {expected} along "
            f"dimension {dim}; {target.plan.algorithm} needs one for each other"
        )
    return outputs.movedim(target.plan.channel_dim, 0).reshape(channels, -1)


def scores_of_blocks(per_channel: Tensor, target: tersely.PruningTarget) -> Tensor:
    """Give every block the mean score of the channels that it overlaps.

    Args:
        per_channel: shape (channels,), float.
        target: the tensor to rank; in a grouped transposed convolution each index of its channel
            dimension makes one channel of every group.

    Returns:
        Shape (blocks along each dimension), the dtype of ``per_channel``.

    Raises:
        PlanError: every block extends over all channels.
    """
    dim = _channel_dim(target)
    counts = block_counts(target)
    if counts[dim] == 1 and math.prod(counts) > 1:
        raise tersely.PlanError(
            f"{target.name}: {target.plan.algorithm} ranks output channels, dimension {dim}, and "
            "its granularity puts all of them into every block; write granularity: default",
            **target.plan.place,
        )
    one_group = per_channel.reshape(-1, target.tensor.shape[dim]).mean(0)
    along = [-1 if index == dim else 1 for index in range(len(counts))]
    return one_group.reshape(counts[dim], -1).mean(1).reshape(along).expand(counts).clone()


def observed_by(target: tersely.PruningTarget) -> dict[str, Tensor]:
    """Return the sums of calibration.

    Args:
        target: the tensor to rank.

    Raises:
        SessionError: there was no calibration.
    """
    if not target.observed:
        raise tersely.SessionError(
            f"{target.name}: {target.plan.algorithm} ranks by what calibration sees; call "
            "session.calibrate(batches) before session.compress()",
            **target.plan.place,
        )
    return dict(target.observed)


def count_per_channel(rows: Tensor) -> Tensor:
    """Return the number of values in each channel, as an integer that can be summed exactly.

    Args:
        rows: shape (channels, values of one channel).
    """
    return torch.tensor(rows.shape[1], device=rows.device)


def _channel_dim(target: tersely.PruningTarget) -> int:
    return min(target.plan.output_dim, target.tensor.ndim - 1)
