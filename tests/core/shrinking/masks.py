"""Masks of half of every group of channels that the tracer finds."""

import re

import torch
from torch import nn

from tersely.shrinking.tracer import ExportedGraphTracer


def output_dim(model, name):
    """The dimension of a weight that makes outputs."""
    module = model.get_submodule(name.rpartition(".")[0])
    return (
        1
        if isinstance(module, (nn.modules.conv._ConvTransposeNd, nn.Embedding, nn.EmbeddingBag))
        else 0
    )


def half_of_all_groups(model, inputs, ends, *, heads=None):
    """Masks of every other block of each group of channels, biases included.

    Args:
        model: the model.
        inputs: of its forward.
        ends: layers whose groups keep all channels.
        heads: pattern of a parameter -> channels that go together in its group, as of a head.
    """
    parameters = dict(model.named_parameters())
    names = [name for name in parameters if re.search(r"weight(_[ih]h_l\d+\w*)?\Z", name)]
    kept = {}
    for shared in ExportedGraphTracer().trace(model, inputs, parameters=names):
        modules = {name.rpartition(".")[0] for name in shared.parameters}
        if modules & set(ends):
            continue
        width = next(
            (
                size
                for pattern, size in (heads or {}).items()
                if any(re.search(pattern, name) for name in shared.parameters)
            ),
            1,
        )
        for name in shared.parameters:
            weight, dim = parameters[name], output_dim(model, name)
            count, cutting = weight.shape[dim], shared.cutting_of(name)
            blocks = [cutting.block_of(channel, count) for channel in range(count)]
            rows = torch.tensor([block // width % 2 == 0 for block in blocks])
            shape = [-1 if d == dim else 1 for d in range(weight.ndim)]
            kept[name] = rows.view(shape).expand(weight.shape)
            bias = parameters.get(name.replace("weight", "bias"))
            if bias is not None:
                kept[name.replace("weight", "bias")] = rows.repeat(bias.numel() // count)
    return kept
