"""Lin et al., HRank: Filter Pruning using High-Rank Feature Map, CVPR 2020, equation 4: the mean
rank of the feature maps that a filter makes.
"""

import torch

import tersely
from tersely.contracts import ObservesOutputs


class RankOfMaps(ObservesOutputs):
    """Sums the ranks of each channel's maps; without positions a map has rank 1 or 0."""

    def observe_output(self, outputs: torch.Tensor, target: tersely.PruningTarget):
        maps = outputs.movedim(
            target.plan.channel_dim, 0
        ).float()  # (channels, batch, positions...)
        while maps.dim() < 4:
            maps = maps.unsqueeze(-1)
        ranks = torch.linalg.matrix_rank(maps.flatten(3)).double()  # (channels, batch)
        return {"ranks": ranks.sum(1), "count": torch.tensor(float(ranks.shape[1]))}

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        shape = [1] * target.tensor.dim()
        shape[target.plan.output_dim] = -1
        mean = target.observed["ranks"] / target.observed["count"]
        scores = mean.float().view(shape).to(target.tensor.device)
        return scores.expand_as(target.tensor)


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="rank_of_maps",
            implementation="rank_of_maps:RankOfMaps",
            summary="Mean rank of the feature maps of every output channel.",
            paper="Lin et al., HRank, CVPR 2020",
            target_kinds=("parameter",),
            granularities=("out_channel",),
            default_granularity="output_channel",
        )
    ]
