"""Whole networks lose every other channel of each group that the tracer finds (float64)."""

import pytest
import torch
from torch import nn

from tersely.shrinking.tracer import ExportedGraphTracer

IMAGE = (torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)

ENDS = {
    "Nested": ("last",),
    "AlexNet": ("classifier.4",),
    "SqueezeNet": ("last",),
    "mobilenet_v2": ("classifier.1",),
    "mobilenet_v3": ("classifier.3",),
    "efficientnet": ("classifier",),
    "ResNet": ("fc",),
    "Transposed": ("head",),
    "Normless": ("classifier",),
    "Mixed": ("last",),
    "Levels": ("boxes",),
    "Yolo": ("boxes.0.1", "boxes.1.1", "classes.0.1", "classes.1.1"),
}
"""Networks of ``networks.py``, and the layers that end each."""


def every_other(model, ends):
    """Masks of every other block of each group of channels, biases included."""
    weights = {f"{name}.weight": module for name, module in model.named_modules()}
    names = [name for name, _ in model.named_parameters() if name.endswith("weight")]
    ended = {f"{name}.weight" for name in ends}
    kept = {}
    for shared in ExportedGraphTracer().trace(model, IMAGE, parameters=names):
        if ended & set(shared.parameters):
            continue
        for name in shared.parameters:
            module, cutting = weights[name], shared.cutting_of(name)
            dim = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            count = module.weight.shape[dim]
            blocks = [cutting.block_of(channel, count) for channel in range(count)]
            rows = torch.tensor([block % 2 == 0 for block in blocks])
            shape = [-1 if d == dim else 1 for d in range(module.weight.ndim)]
            kept[name] = rows.view(shape).expand(module.weight.shape)
            if module.bias is not None:  # of all groups of a transposed convolution
                bias = rows.repeat(module.bias.numel() // count)
                kept[name.replace("weight", "bias")] = bias
    return kept


@pytest.mark.parametrize("name", ENDS)
def test_every_other_channel_of_a_network_goes(help, networks, name):
    torch.manual_seed(0)
    model = help.lived_in(getattr(networks, name)())
    before = sum(one.numel() for one in model.parameters())
    found = help.shrink(model, IMAGE, every_other(model, ENDS[name]))
    assert found.stays == ()
    assert sum(one.numel() for one in model.parameters()) < 0.45 * before


@pytest.mark.parametrize(("groups", "width"), [(4, 16), (1, 24)])
def test_every_other_channel_of_grouped_and_wide_bottlenecks_goes(help, networks, groups, width):
    torch.manual_seed(0)
    model = help.lived_in(networks.ResNet(groups=groups, width=width))
    found = help.shrink(model, IMAGE, every_other(model, ["fc"]))
    assert found.stays == ()
    assert model.layers[0].second[0].weight.shape == (width // 2, width // 2 // groups, 3, 3)
    assert model.layers[0].second[0].groups == groups


def test_a_norm_without_parameters_states_the_channels_that_are_left(help, networks):
    torch.manual_seed(0)
    model = networks.Normless().eval()
    help.shrink(model, IMAGE, every_other(model, ["classifier"]))
    assert (model.first_norm.num_features, model.second_norm.num_features) == (4, 6)


def test_groups_of_a_transposed_convolution_lose_inputs_of_their_own_and_the_same_outputs(help):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 12, 2, groups=2), nn.Conv2d(12, 3, 1)]
    model = nn.Sequential(*layers)
    columns = help.keep(6, [0, 2, 5])
    kept = help.rows(model, ["0"], help.keep(8, [0, 3, 4, 5]))
    kept |= {"1.weight": columns.view(1, -1, 1, 1).expand(8, 6, 2, 2), "1.bias": columns.repeat(2)}
    help.shrink(model, IMAGE, kept)
    assert model[1].weight.shape == (4, 3, 2, 2)
    assert (model[1].groups, model[1].in_channels, model[1].out_channels) == (2, 4, 6)
