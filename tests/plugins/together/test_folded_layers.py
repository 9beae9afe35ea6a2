"""Folded transposed convolutions with a scale for each output channel."""

import pytest
import torch
from torch import nn

import tersely


@pytest.mark.parametrize("groups", [1, 2])
def test_every_output_channel_has_the_scale_of_its_folded_weights(groups):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, groups=groups), nn.BatchNorm2d(6), nn.Hardswish()
    ).eval()
    with torch.no_grad():
        model[1].running_var.uniform_(0.1, 9)
        model[1].weight.uniform_(0.5, 2)
    inputs = torch.randn(2, 4, 5, 5)
    wanted = model(inputs).detach()
    entry = {
        "op_names": ["0"],
        "target_names": ["weight"],
        "granularity": "per_channel",
        "fuse_names": [["0", "1", "2"]],
    }
    session = tersely.quantize(model, [entry], algorithm="rtn")
    scale = session.qparams()["0"]["weight"].scale.flatten()
    simulated = model(inputs).detach()
    session.finalize()

    # Output channel j of a group is column j of the rows that are the group's inputs.
    rows = model[0].weight.detach().unflatten(0, (groups, -1)).abs().amax((1, 3, 4)).flatten()
    torch.testing.assert_close(rows, 127 * scale)
    torch.testing.assert_close(model(inputs), simulated)
    assert (simulated - wanted).norm() < 0.02 * wanted.norm()
