"""Tracing leaves nothing behind, whether it succeeds or fails."""

import pytest
import torch
from torch import nn

import tersely

GIVEN = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]


class Net(nn.Module):
    def __init__(self, *, fails=False):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.fails, self.seen = fails, []

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        x.mul_(1.5)
        x = self.drop(self.norm(self.a(x) + self.b(x))) + torch.rand(())
        if self.fails:
            raise RuntimeError("no")
        return x


@pytest.fixture(params=[False, True], ids=["traced", "refused"])
def model(request):
    model = Net(fails=request.param)
    model.a.weight.requires_grad_(False)
    model.a.eval()
    (model.b.weight**2).sum().backward()
    return model


def trace(model, image):
    try:
        return tersely.auto_dependency_groups(model, GIVEN, image)
    except tersely.PlanError:
        assert model.fails
        return None


def test_modes_stay(model, image):
    before = {name: module.training for name, module in model.named_modules()}
    trace(model, image)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_parameters_their_values_and_their_gradients_stay(model, image):
    before = {
        name: (one, one.clone(), one.grad, one.requires_grad)
        for name, one in model.named_parameters()
    }
    trace(model, image)
    for name, parameter in model.named_parameters():
        same, value, gradient, wants = before[name]
        assert parameter is same
        assert torch.equal(parameter, value)
        assert parameter.grad is gradient
        assert parameter.requires_grad is wants


def test_buffers_and_attributes_stay(model, image):
    before = {name: one.clone() for name, one in model.named_buffers()}
    trace(model, image)
    assert all(torch.equal(one, before[name]) for name, one in model.named_buffers())
    assert model.seen == []


def test_hooks_stay(model, image):
    model.a.register_forward_hook(lambda module, arguments, output: None)
    before = {
        name: (list(module._forward_hooks), list(module._forward_pre_hooks))
        for name, module in model.named_modules()
    }
    trace(model, image)
    assert {
        name: (list(module._forward_hooks), list(module._forward_pre_hooks))
        for name, module in model.named_modules()
    } == before


def test_the_random_generator_stays(model, image):
    before = torch.get_rng_state()
    trace(model, image)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_inputs_stay(model, image):
    before = image.clone()
    trace(model, image)
    assert torch.equal(image, before)
    assert not image.requires_grad


def test_gradients_stay_switched_off(image):
    with torch.no_grad():
        found = trace(Net(), image)
        assert not torch.is_grad_enabled()
    assert found[0]["op_names"] == ["a", "b"]


def test_the_same_call_gives_the_same_list(image):
    assert trace(Net(), image) == trace(Net(), image)
