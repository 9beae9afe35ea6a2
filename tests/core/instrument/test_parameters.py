"""Invariants 1 and 12: the user's own Parameters under their own names, read masked."""

import pytest
import torch
from torch import nn

import tersely


def test_parameters_keep_their_names_and_are_the_same_objects(net, x, prune):
    before = dict(net.named_parameters())
    prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    after = dict(net.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_an_input_or_output_target_adds_no_parameter(net, masked):
    assert [name for name, _ in net.named_parameters()] == [
        "first.weight",
        "first.bias",
        "last.weight",
        "last.bias",
    ]


def test_an_optimizer_built_before_attaching_trains_the_model(net, x, prune):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    session = prune(net, {"op_names": ["last"], "sparse_ratio": 0.5})
    raw = net._modules["last"]._parameters["weight"]
    before = raw.detach().clone()
    net(x).sum().backward()
    optimizer.step()
    kept = session.masks()["last"]["weight"]
    assert torch.equal(raw != before, kept)


def test_a_masked_weight_reads_as_weight_times_mask(prune):
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -4.0], [3.0, -2.0]]))
    prune(nn.Sequential(layer), {"op_types": ["Linear"], "sparse_ratio": 0.5})
    assert layer.weight.tolist() == [[0.0, -4.0], [3.0, 0.0]]
    assert layer._parameters["weight"].tolist() == [[1.0, -4.0], [3.0, -2.0]]


def test_only_kept_elements_get_a_gradient(prune):
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
    prune(nn.Sequential(layer), {"op_types": ["Linear"], "sparse_ratio": 0.5})
    layer(torch.tensor([[5.0, 7.0]])).sum().backward()
    assert layer._parameters["weight"].grad.tolist() == [[0.0, 7.0]]


def test_before_compress_a_parameter_reads_as_itself(net):
    recipe = {"pruning": {"algorithm": "toy", "config_list": [{"op_types": ["Linear"]}]}}
    raw = net.first.weight
    tersely.attach(net, recipe)
    assert net.first.weight is raw


def test_an_instrumented_module_is_still_what_it_was(net, masked):
    assert isinstance(net.first, nn.Linear)
    assert type(net.first).__name__ == "Linear"
    assert type(net.first).__module__ == nn.Linear.__module__
    assert repr(net.first) == "Linear(in_features=6, out_features=8, bias=True)"


def test_a_new_parameter_can_be_assigned(net, x, masked):
    net.first.weight = nn.Parameter(torch.ones(8, 6))
    assert torch.equal(net.first.weight, masked.masks()["first"]["weight"].float())


def test_a_module_made_from_an_instrumented_one_is_plain(net, masked):
    fresh = type(net.first)(2, 3)
    assert type(fresh) is nn.Linear
    assert fresh(torch.zeros(1, 2)).shape == (1, 3)


def test_a_slice_of_an_instrumented_container_is_plain(x, prune):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    prune(model, {"op_names": [""], "target_names": ["_output_"], "sparse_ratio": 0.5}, data=[x])
    part = model[:2]
    assert type(part) is nn.Sequential
    assert part(x).shape == (4, 6)


def test_the_root_module_itself_can_be_a_target(x, prune):
    layer = nn.Linear(6, 3)
    session = prune(layer, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    assert session.sparsity() == {"": {"weight": 0.5, "bias": 0.0}}
    assert int((layer.weight == 0).sum()) == 9


def test_a_container_can_be_an_output_target(x, prune):
    model = nn.Sequential(nn.Linear(6, 4))
    prune(model, {"op_names": [""], "target_names": ["_output_"], "sparse_ratio": 0.5}, data=[x])
    assert int((model(x) == 0).all(0).sum()) == 2


def test_a_buffer_can_be_a_target(prune):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor([1.0, -3.0, 2.0, 4.0]))

        def forward(self, value):
            return value * self.scale

    model = Scaled()
    prune(model, {"op_names": [""], "target_names": ["scale"], "sparse_ratio": 0.5})
    assert model(torch.ones(4)).tolist() == [0.0, -3.0, 0.0, 4.0]
    assert dict(model.named_buffers())["scale"].tolist() == [1.0, -3.0, 2.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_elementwise_mask_has_its_weights_dtype(dtype, prune):
    layer = nn.Linear(4, 2).to(dtype)
    prune(nn.Sequential(layer), {"op_types": ["Linear"], "sparse_ratio": 0.5})
    assert layer._buffers["_tersely_weight_mask"].dtype is dtype
    assert layer.weight.dtype is dtype


def test_a_structured_mask_is_kept_at_block_shape(prune):
    layer = nn.Conv2d(3, 8, 3)
    prune(nn.Sequential(layer), {"op_types": ["Conv2d"], "sparse_ratio": 0.5}, algorithm="toy_rows")
    assert layer._buffers["_tersely_weight_mask"].shape == (8, 1, 1, 1)
    assert int((layer.weight == 0).all((1, 2, 3)).sum()) == 4


def test_modules_alike_share_their_instruments(prune):
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    prune(model, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    assert len({id(layer.__dict__["_tersely_instruments"]) for layer in model}) == 1
    assert len({type(layer) for layer in model}) == 1
