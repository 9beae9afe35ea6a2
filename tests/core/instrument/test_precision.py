"""Dtypes: autocast, half and double models, and models converted while attached."""

import pytest
import torch
from torch import nn

import tersely

LOW = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
ENTRIES = (
    {"op_types": ["Linear"], "sparse_ratio": 0.5},
    {"op_names": ["act"], "target_names": ["_output_"], "sparse_ratio": 0.25},
)


@LOW
def test_a_model_of_another_dtype_is_masked_in_its_dtype(net, x, prune, dtype):
    net.to(dtype)
    prune(net, *ENTRIES, data=[x.to(dtype)])
    assert net(x.to(dtype)).dtype is dtype
    masks = [buffer for name, buffer in net.named_buffers() if name.endswith("_mask")]
    assert {buffer.dtype for buffer in masks} == {dtype}


@LOW
def test_a_model_converted_while_attached_keeps_its_masks(net, x, prune, dtype):
    session = prune(net, *ENTRIES, data=[x])
    before = session.masks()
    net.to(dtype)
    assert net(x.to(dtype)).dtype is dtype
    assert net.first._buffers["_tersely_weight_mask"].dtype is dtype
    assert torch.equal(session.masks()["first"]["weight"], before["first"]["weight"])
    session.compress()
    assert net.first._buffers["_tersely_weight_mask"].dtype is dtype
    assert net(x.to(dtype)).dtype is dtype


@LOW
def test_an_additive_mask_survives_a_conversion(prune, dtype):
    model = nn.Sequential(nn.Linear(4, 2))
    setting = {"sparse_ratio": 0.5, "apply_method": "add"}
    entry = {"op_names": ["0"], "target_names": ["weight"], "target_settings": {"weight": setting}}
    session = prune(model, entry)
    before = session.masks()["0"]["weight"]
    model.to(dtype)
    assert torch.equal(session.masks()["0"]["weight"], before)


def test_autocast_computes_in_its_dtype(net, x, prune):
    prune(net, *ENTRIES, data=[x])
    exact = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.act(net.first(x)).dtype is torch.bfloat16
        output = net(x)
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output.float(), exact, atol=0.05, rtol=0.05)


def test_autocast_leaves_gradients_in_the_weights_dtype(net, x, prune):
    session = prune(net, *ENTRIES, data=[x])
    with torch.autocast("cpu", torch.bfloat16):
        net(x).sum().backward()
    gradient = net._modules["first"]._parameters["weight"].grad
    assert gradient.dtype is torch.float32
    assert int(gradient[~session.masks()["first"]["weight"]].count_nonzero()) == 0


def test_an_elementwise_mask_costs_a_weight_no_conversion(net, x, prune):
    prune(net, *ENTRIES, data=[x])
    with torch.autocast("cpu", torch.bfloat16):
        assert net.first.weight.dtype is torch.float32


@LOW
def test_masks_are_decided_alike_in_every_precision(prune, dtype):
    masks = []
    for kind in (torch.float32, dtype):
        layer = nn.Linear(4, 2, bias=False).to(kind)
        with torch.no_grad():
            layer.weight.copy_(torch.arange(8.0).view(2, 4) - 3)
        session = prune(nn.Sequential(layer), {"op_types": ["Linear"], "sparse_ratio": 0.5})
        masks.append(session.masks()["0"]["weight"])
    assert torch.equal(*masks)


def test_a_double_model_calibrates_in_double():
    model = nn.Sequential(nn.Identity())
    entry = {"op_names": ["0"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    tiny = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)
    session = tersely.prune(model, [entry], algorithm="toy", data=[tiny.flip(1)])
    assert session.masks()["0"]["_output_"].tolist() == [True, False]
