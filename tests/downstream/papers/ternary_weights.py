"""Li, Zhang and Liu, Ternary Weight Networks, 2016, equations 5 and 6: -1, 0 and 1 times the mean
of what lies above a threshold, which is 0.7 times the mean magnitude.
"""

import torch

import tersely
from tersely.contracts import SolvesWeights, UsesLevels


class TernaryWeights(UsesLevels, SolvesWeights):
    """Solved once; magnitudes above 0.7 times their mean become their own mean."""

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight | None:
        if not target.has_levels or target.tensor is None:
            return None
        weight, size = target.tensor.detach(), target.blocks.size
        magnitude = weight.float().abs()
        count = magnitude.numel() / tersely.sum_blocks(torch.ones_like(magnitude), size).numel()
        threshold = 0.7 * tersely.sum_blocks(magnitude, size) / count
        above = (magnitude > tersely.expand_blocks(threshold, size, weight.shape)).float()
        total = tersely.sum_blocks(above, size)
        scale = tersely.sum_blocks(magnitude * above, size) / total.clamp_min(1)
        low, high = tersely.block_range(weight.float(), size)
        chosen = tersely.choose_qparams(low, high, target)
        qparams = chosen.evolve(
            scale=scale.clamp_min(1e-12).reshape(chosen.scale.shape),
            levels=torch.tensor([-1.0, 0.0, 1.0]),
        )
        steps = tersely.expand_blocks(scale, size, weight.shape)
        return tersely.QuantizedWeight((weight.sign() * above * steps).to(weight.dtype), qparams)


@tersely.hookimpl
def tersely_quantizers():
    return [
        tersely.QuantizerInfo(
            name="ternary_weights",
            implementation="ternary_weights:TernaryWeights",
            summary="-1, 0 and 1 times the mean of large weights.",
            paper="Li, Zhang and Liu, TWN, 2016",
            target_kinds=("parameter",),
        )
    ]
