"""Large masked convolutions: computed as PyTorch does with weight * mask, to the last bit."""

import pytest
import torch
from torch import nn
from torch.nn import functional

MASK = "_laconic_weight_mask"

CONVOLUTIONS = pytest.mark.parametrize(
    ("kind", "settings", "shape"),
    [
        (nn.Conv2d, {"kernel_size": 4}, (2, 64, 6, 6)),
        (nn.Conv2d, {"kernel_size": 4, "stride": 2, "padding": 1, "dilation": 2}, (2, 64, 9, 9)),
        (nn.Conv2d, {"kernel_size": 8, "groups": 4, "bias": False}, (2, 64, 9, 9)),
        (nn.Conv3d, {"kernel_size": (2, 4, 2)}, (1, 64, 3, 5, 3)),
    ],
)


@pytest.fixture
def layer(masked_layer):
    torch.manual_seed(0)
    return masked_layer(nn.Conv2d(64, 64, 4))


@pytest.fixture
def image():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 64, 5, 5, generator=generator, requires_grad=True)


def plain(layer, value):
    weight = layer._parameters["weight"] * layer._buffers[MASK]
    return layer._conv_forward(value, weight, layer.bias)


def inputs(layer, value):
    return [value, *layer.parameters()]


@CONVOLUTIONS
def test_output_and_gradients_are_those_of_the_masked_weight(masked_layer, kind, settings, shape):
    torch.manual_seed(0)
    layer = masked_layer(kind(64, 64, **settings))
    value = torch.randn(shape, requires_grad=True)
    output, expected = layer(value), plain(layer, value)
    assert output.grad_fn.name() == "_MaskedConvolutionBackward"
    assert torch.equal(output, expected)
    found = torch.autograd.grad(output.square().sum(), inputs(layer, value))
    wanted = torch.autograd.grad(expected.square().sum(), inputs(layer, value))
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


@CONVOLUTIONS
def test_what_follows_may_work_in_place(masked_layer, kind, settings, shape):
    layer = masked_layer(kind(64, 64, **settings))
    value = torch.randn(shape)
    output = layer(value)
    assert not output._is_view()
    nn.ReLU(inplace=True)(output).square().sum().backward()
    found = layer._parameters["weight"].grad
    (expected,) = torch.autograd.grad(
        plain(layer, value).relu().square().sum(), layer._parameters["weight"]
    )
    assert torch.equal(found, expected)


def test_a_convolution_over_one_dimension_is_left_to_pytorch(masked_layer):
    layer = masked_layer(nn.Conv1d(64, 64, 16))
    value = torch.randn(2, 64, 20)
    assert torch.equal(layer(value), plain(layer, value))
    nn.ReLU(inplace=True)(layer(value)).sum().backward()


def test_masked_elements_get_a_gradient_of_exactly_zero(layer, image):
    layer(image).square().sum().backward()
    gradient, mask = layer._parameters["weight"].grad, layer._buffers[MASK]
    assert int(gradient[mask == 0].count_nonzero()) == 0
    assert int(gradient[mask == 1].count_nonzero()) == 64 * 64 * 16 // 2


@pytest.mark.parametrize("frozen", ["image", "weight", "bias"])
def test_what_wants_no_gradient_gets_none(layer, image, frozen):
    leaves = {"image": image, **dict(layer.named_parameters())}
    leaves[frozen].requires_grad_(False)
    rest = [leaf for name, leaf in leaves.items() if name != frozen]
    found = torch.autograd.grad(layer(image).sum(), rest)
    wanted = torch.autograd.grad(plain(layer, image).sum(), rest)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    "settings",
    [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}],
    ids=["padding_by_name", "padding_with_values"],
)
def test_other_paddings_are_left_to_pytorch(masked_layer, image, settings):
    layer = masked_layer(nn.Conv2d(64, 64, 5, **settings))
    assert layer(image).grad_fn.name() != "_MaskedConvolutionBackward"
    assert torch.equal(layer(image), plain(layer, image))


def test_a_sample_without_a_batch_is_left_to_pytorch(layer, image):
    output = layer(image[0])
    assert output.shape == (64, 2, 2)
    torch.testing.assert_close(output, plain(layer, image)[0])


def test_a_convolution_that_is_replaced_on_the_module_is_called(layer, image):
    layer._conv_forward = lambda value, weight, bias: functional.conv2d(value, 2 * weight, bias)
    doubled = functional.conv2d(image, 2 * layer.weight, layer.bias)
    assert torch.equal(layer(image), doubled)


def test_gradients_of_gradients_are_right(masked_layer):
    torch.manual_seed(0)
    layer = masked_layer(nn.Conv2d(64, 64, 4).double())
    value = torch.randn(1, 64, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = layer._parameters["weight"]

    def penalty(output):
        first = torch.autograd.grad(output.pow(3).sum(), (value, weight), create_graph=True)
        return torch.autograd.grad(sum(one.square().sum() for one in first), (value, weight))

    for one, other in zip(penalty(layer(value)), penalty(plain(layer, value)), strict=True):
        torch.testing.assert_close(one, other)


def test_vectorized_gradients_are_right(layer, image):
    directions = torch.randn(3, 2, 64, 2, 2)
    found, wanted = (
        torch.autograd.grad(output, inputs(layer, image), directions, is_grads_batched=True)
        for output in (layer(image), plain(layer, image))
    )
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
