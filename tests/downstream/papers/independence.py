"""Sui et al., CHIP: CHannel Independence-based Pruning for Compact Neural Networks, NeurIPS 2021,
equation 3: how much the nuclear norm of a layer's outputs loses without the channel.
"""

import torch

import tersely
from tersely.contracts import ObservesOutputs


class Independence(ObservesOutputs):
    """Sums over samples the loss of nuclear norm by setting one channel's map to zero."""

    def observe_output(self, outputs: torch.Tensor, target: tersely.PruningTarget):
        dim = target.plan.channel_dim
        maps = outputs.movedim(dim, 1) if outputs.dim() > 2 else outputs.unsqueeze(-1)
        maps = maps.flatten(2).double()  # (batch, channels, positions)
        whole = torch.linalg.matrix_norm(maps, "nuc")
        losses = []
        for channel in range(maps.shape[1]):
            without = maps.clone()
            without[:, channel] = 0
            losses.append((whole - torch.linalg.matrix_norm(without, "nuc")).sum())
        return {"loss": torch.stack(losses)}

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        shape = [1] * target.tensor.dim()
        shape[target.plan.output_dim] = -1
        scores = target.observed["loss"].float().view(shape).to(target.tensor.device)
        return scores.expand_as(target.tensor)


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="independence",
            implementation="independence:Independence",
            summary="What the outputs' nuclear norm loses without a channel.",
            paper="Sui et al., CHIP, NeurIPS 2021",
            target_kinds=("parameter",),
            granularities=("out_channel",),
            default_granularity="output_channel",
        )
    ]
