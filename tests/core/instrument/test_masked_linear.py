"""Large masked linear layers: the numbers are those of value @ (weight * mask).T + bias."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tersely.instrument.masks.masked_linear import BLOCK

MASK = "_tersely_weight_mask"
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture
def layer(masked_layer):
    torch.manual_seed(0)
    # 512 rows are a block: two whole ones, and 76 rows that are left.
    assert BLOCK // 1024 == 512
    return masked_layer(nn.Linear(1024, 1100))


def parts(layer):
    return layer._parameters["weight"], layer._buffers[MASK], layer.bias


def plain(layer, value):
    weight, mask, bias = parts(layer)
    return functional.linear(value, weight * mask, bias)


def gradients(output, layer, value, seed=1):
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
    inputs = [one for one in (value, *layer.parameters()) if one.requires_grad]
    return torch.autograd.grad(output, inputs, direction.to(output.dtype))


def assert_alike(layer, value):
    output, expected = layer(value), plain(layer, value)
    assert output.grad_fn.name() == "_MaskedLinearBackward"
    assert output.is_contiguous()
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if value.dtype is torch.float32 else {}
    torch.testing.assert_close(output, expected, **tolerance)
    found = gradients(output, layer, value)
    for one, other in zip(found, gradients(expected, layer, value), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@TYPES
@pytest.mark.parametrize(
    "shape",
    [(5, 1024), (1024,), (1, 1024), (2, 3, 1024), (0, 1024), (64, 1024)],
)
def test_output_and_gradients_are_those_of_the_masked_weight(layer, shape, dtype):
    layer.to(dtype)
    assert_alike(layer, torch.randn(shape, dtype=dtype, requires_grad=True))


@pytest.mark.parametrize("shape", [(1024, 1024), (1024, 1025), (1 << 18, 5), (1 << 16, 16)])
@pytest.mark.parametrize("batch", [1, 10])
def test_any_number_of_outputs_is_cut(masked_layer, shape, batch):
    layer = masked_layer(nn.Linear(*shape).double())
    assert_alike(layer, torch.randn(batch, shape[0], dtype=torch.float64, requires_grad=True))


def test_a_layer_without_bias_has_none(masked_layer):
    layer = masked_layer(nn.Linear(1024, 1100, bias=False).double())
    assert_alike(layer, torch.randn(4, 1024, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("frozen", ["value", "weight", "bias"])
def test_what_wants_no_gradient_gets_none(layer, frozen):
    layer.double()
    value = torch.randn(4, 1024, dtype=torch.float64, requires_grad=frozen != "value")
    if frozen != "value":
        layer._parameters[frozen].requires_grad_(False)
    assert_alike(layer, value)


def test_inputs_and_gradients_need_not_be_contiguous(layer):
    layer.double()
    value = torch.randn(1024, 4, dtype=torch.float64).t().requires_grad_()
    assert_alike(layer, value)
    (found,) = torch.autograd.grad(layer(value).sum(), value)
    (expected,) = torch.autograd.grad(plain(layer, value).sum(), value)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(1024,), (4, 1024), (2, 3, 1024)])
def test_what_follows_may_work_in_place(layer, shape):
    layer.double()
    value = torch.randn(shape, dtype=torch.float64)
    output = layer(value)
    assert not output._is_view()
    nn.ReLU(inplace=True)(output).square().sum().backward()
    weight = layer._parameters["weight"]
    (expected,) = torch.autograd.grad(plain(layer, value).relu().square().sum(), weight)
    torch.testing.assert_close(weight.grad, expected)


def test_a_masked_bias_is_masked_here_too(prune):
    layer = nn.Linear(1024, 1100).double()
    alone = {"bias": {"align": None, "sparse_ratio": 0.5}}
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5, "target_settings": alone}
    prune(nn.Sequential(layer), entry)
    assert (layer.bias == 0).sum() == 550
    assert_alike(layer, torch.randn(4, 1024, dtype=torch.float64, requires_grad=True))


def test_masked_elements_get_a_gradient_of_exactly_zero(layer):
    weight, mask, _ = parts(layer)
    layer(torch.randn(4, 1024)).square().sum().backward()
    assert int(weight.grad[mask == 0].count_nonzero()) == 0
    assert int(weight.grad[mask == 1].count_nonzero()) == 1100 * 512


def test_kept_elements_that_are_zero_get_their_gradient(layer):
    weight, mask, _ = parts(layer)
    with torch.no_grad():
        weight.zero_()
    layer(torch.ones(1, 1024)).sum().backward()
    assert torch.equal(weight.grad, mask)


def test_without_gradients_the_output_is_the_same(layer):
    value = torch.randn(4, 1024)
    with torch.no_grad():
        assert torch.equal(layer(value), layer(value.requires_grad_()))
    with torch.inference_mode():
        assert torch.equal(layer(value.detach()), layer(value).detach())


def test_the_weight_and_the_mask_are_as_they_were(layer):
    weight, mask, _ = parts(layer)
    before = weight.detach().clone(), mask.clone()
    layer(torch.randn(4, 1024, requires_grad=True)).sum().backward()
    assert torch.equal(weight, before[0])
    assert torch.equal(mask, before[1])


def test_gradients_are_those_of_finite_differences(layer):
    layer.double()
    value = torch.randn(3, 1024, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, value, fast_mode=True)


def test_training_follows_the_plain_formula(layer):
    layer.double()
    other = copy.deepcopy(layer)
    optimizers = [torch.optim.SGD(one.parameters(), 0.01, 0.9) for one in (layer, other)]
    for step in range(4):
        value = torch.randn(8, 1024, generator=torch.Generator().manual_seed(step)).double()
        for one, optimizer in zip((layer, other), optimizers, strict=True):
            optimizer.zero_grad()
            output = one(value) if one is layer else plain(one, value)
            output.square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(layer._parameters["weight"], other._parameters["weight"])
    torch.testing.assert_close(layer.bias, other.bias)
