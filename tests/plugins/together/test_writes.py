"""Writes into weights that are quantized or folded while they train."""

import pytest
import torch
from torch import nn

import tersely
from tersely import SessionError


def _attached(model, **entry):
    config = {"target_names": ["weight"], "quant_dtype": "int4", **entry}
    recipe = {"quantization": {"algorithm": "qat", "config_list": [config]}}
    session = tersely.attach(model, recipe)
    session.compress()
    return session


def test_a_write_reaches_the_weight_that_trains_and_not_its_rounded_values():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    plain = layer.weight.detach().clone()
    _attached(nn.Sequential(layer), op_types=["Conv2d"])
    layer(torch.randn(1, 3, 5, 5))
    layer.weight.data.add_(1e-6)
    assert torch.equal(layer._parameters["weight"], plain + 1e-6)


def test_a_constraint_that_changes_nothing_leaves_the_weight_that_trains_unrounded():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    plain = layer.weight.detach().clone()
    _attached(nn.Sequential(layer), op_types=["Conv2d"])
    layer(torch.randn(1, 3, 5, 5))
    assert not torch.equal(layer.weight, plain)
    layer.weight.data = torch.renorm(layer.weight.data, p=2, dim=0, maxnorm=100)
    assert torch.equal(layer._parameters["weight"], plain)


def test_a_clipped_weight_trains_on():
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    model = nn.Sequential(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = _attached(model, op_types=["Linear"])
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        layer.weight.data.clamp_(-0.05, 0.05)
        session.step()
    assert layer._parameters["weight"].abs().max() <= 0.05


def test_a_bias_that_a_folded_batch_norm_brings_cannot_be_written():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    _attached(model, op_names=["0"], fuse_names=[("0", "1")])
    assert model[0].bias is not None
    with torch.no_grad(), pytest.raises(SessionError, match=r"0\.bias is written, and the layer"):
        model[0].bias.zero_()
