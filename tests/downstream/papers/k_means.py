"""Kim et al., SqueezeLLM: Dense-and-Sparse Quantization, ICML 2024, section 4.1: levels by k-means,
in which each weight counts by the squared gradient of the loss, here of the layer's outputs.

Departs from the paper in that a target has one table of levels, not one for each output channel,
and that no outliers are kept apart; sensitivity is that of the outputs' squared error, the mean
squared input of a column, as no gradient is seen in calibration.
"""

import torch

import tersely
from tersely.contracts import ObservesInputs, SolvesWeights, UsesLevels


class KMeans(UsesLevels, ObservesInputs, SolvesWeights):
    """Lloyd's algorithm in one dimension, from quantiles.

    Args:
        iterations: how often levels move.
    """

    def __init__(self, *, iterations: int = 20) -> None:
        self.iterations = iterations

    def observe_input(self, inputs: torch.Tensor, target: tersely.QuantizationTarget):
        squares = 0
        for rows in tersely.input_rows(inputs, target, at_a_time=1 << 20):
            squares = squares + rows.double().square().sum(1)
        return {"squares": squares}  # (groups, columns)

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight | None:
        if not target.has_levels or target.tensor is None or target.blocks.size != _whole(target):
            return None
        layout = tersely.matrix_layout(target)
        weight = tersely.to_matrices(target.tensor.detach().double(), layout)
        counts = target.observed["squares"].to(weight).unsqueeze(1).expand_as(weight)
        counts = counts / counts.mean().clamp_min(1e-30) + 1e-6
        values, order = weight.flatten().sort()
        counts = counts.flatten()[order]
        count = target.quant_max - target.quant_min + 1
        levels = values[torch.linspace(0, len(values) - 1, count).long()]
        for _ in range(self.iterations):
            places = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
            total = torch.zeros_like(levels).index_add(0, places, counts)
            sums = torch.zeros_like(levels).index_add(0, places, counts * values)
            levels = torch.where(total > 0, sums / total, levels)
        levels = levels.float().unique()
        if len(levels) == 1:  # every weight has one value, as all of them may be zero
            return None
        scale = levels.abs().amax().clamp_min(1e-12)
        low, high = tersely.block_range(target.tensor.detach().float(), target.blocks.size)
        chosen = tersely.choose_qparams(low, high, target)
        qparams = chosen.evolve(scale=scale.reshape(chosen.scale.shape), levels=levels / scale)
        found = tersely.fake_quantize(target.tensor.detach(), qparams)
        return tersely.QuantizedWeight(found, qparams)


def _whole(target: tersely.QuantizationTarget) -> tuple[int, ...]:
    return (-1,) * len(target.blocks.size)


@tersely.hookimpl
def tersely_quantizers():
    return [
        tersely.QuantizerInfo(
            name="k_means",
            implementation="k_means:KMeans",
            summary="Levels by k-means, weighed by the inputs.",
            paper="Kim et al., SqueezeLLM, ICML 2024",
            target_kinds=("parameter",),
            options={
                "type": "object",
                "properties": {"iterations": {"type": "integer", "minimum": 0, "default": 20}},
                "additionalProperties": False,
                "examples": [{"iterations": 5}],
            },
        )
    ]
