"""int32 biases fit whatever the weights beside them are, and scales belong to output channels."""

import copy
import warnings

import pytest
import torch
from torch import nn

import tersely
from tersely.errors import CompressionWarning

LIMIT = 2**31 - 1


def entry(name="0", **settings):
    return {
        "op_names": [name],
        "target_names": ["_input_", "weight", "bias"],
        "target_settings": {
            "weight": {"granularity": "per_channel", **settings},
            "bias": {"quant_dtype": "int32"},
        },
    }


def layer_of(kind):
    torch.manual_seed(0)
    return {
        "linear": (nn.Linear(4, 6), (3, 4)),
        "conv": (nn.Conv2d(4, 6, 3), (2, 4, 5, 5)),
        "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
        "transposed": (nn.ConvTranspose2d(4, 6, 2), (2, 4, 3, 3)),
        "grouped_transposed": (nn.ConvTranspose2d(4, 6, 2, groups=2), (2, 4, 3, 3)),
        "depthwise_transposed": (nn.ConvTranspose1d(6, 6, 2, groups=6), (2, 6, 3)),
    }[kind]


def channel(layer, number):
    """The weights of one output channel, a view."""
    if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
        each = layer.out_channels // layer.groups
        inputs = layer.in_channels // layer.groups
        group, index = divmod(number, each)
        return layer.weight.data[group * inputs : (group + 1) * inputs, index]
    return layer.weight.data[number]


KINDS = ["linear", "conv", "grouped", "transposed", "grouped_transposed", "depthwise_transposed"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_channel_has_the_scale_of_its_own_weights(kind):
    layer, shape = layer_of(kind)
    largest = [float(channel(layer, number).abs().max()) for number in range(6)]

    session = tersely.quantize(nn.Sequential(layer), [entry()], data=[torch.rand(shape)])

    found = session.qparams()["0"]
    assert found["weight"].scale.flatten().tolist() == pytest.approx([one / 127 for one in largest])
    units = found["_input_"].scale.double() * found["weight"].scale.flatten().double()
    assert torch.equal(found["bias"].scale, units)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bias_of_a_channel_without_weights_stays(kind):
    layer, shape = layer_of(kind)
    layer.bias.data.fill_(0.8)
    for number in (1, 4):
        channel(layer, number).zero_()
    model = nn.Sequential(layer)
    inputs = torch.rand(shape) * 0.01
    wanted = model(inputs).detach()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = tersely.quantize(model, [entry()], data=[inputs])

    scale = session.qparams()["0"]["weight"].scale.flatten()
    least = 0.8 / (float(session.qparams()["0"]["_input_"].scale) * LIMIT)
    assert scale[[1, 4]].tolist() == pytest.approx([least, least])
    assert torch.allclose(model(inputs), wanted, atol=1e-3)
    integers = session.integer_weights()["0"]["bias"]
    assert int(integers.values.long().abs().max()) <= LIMIT
    assert torch.allclose(integers.dequantize(), layer.bias.data, atol=1e-6)


def test_a_weight_that_loses_more_than_a_bit_is_named():
    layer = nn.Linear(2, 2)
    layer.weight.data.copy_(torch.tensor([[1e-4, 1e-4], [1.0, 1.0]]))
    layer.bias.data.copy_(torch.tensor([50.0, 0.5]))
    inputs = torch.rand(4, 2) * 1e-3
    least = 50 / (float(inputs.max()) / 127 * LIMIT)

    with pytest.warns(CompressionWarning) as caught:
        session = tersely.quantize(nn.Sequential(layer), [entry()], data=[inputs])

    scale = session.qparams()["0"]["weight"].scale.flatten().tolist()
    assert scale == pytest.approx([least, 1 / 127])
    (text,) = [str(one.message) for one in caught]
    assert text.startswith(
        f"int32 biases fit only with weight scales more than twice as large, which costs more than "
        f"one bit: 0.weight (1 of 2 scales, up to {least / (1e-4 / 127):.3g} times); "
    )


def test_one_scale_serves_the_largest_bias():
    layer = nn.Linear(2, 2)
    layer.weight.data.zero_()
    layer.bias.data.copy_(torch.tensor([0.5, -8.0]))
    inputs = torch.rand(4, 2) * 1e-3

    session = tersely.quantize(nn.Sequential(layer), [entry(granularity="default")], data=[inputs])

    least = 8 / (float(inputs.max()) / 127 * LIMIT)
    assert session.qparams()["0"]["weight"].scale.item() == pytest.approx(least)


@pytest.mark.parametrize("algorithm", ["qat", "lsq", "lsq_plus"])
def test_biases_fit_all_through_training(algorithm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].weight.data[1] = 0
    model[0].bias.data.fill_(2)
    dense = copy.deepcopy(model)
    inputs = torch.rand(8, 4) * 1e-3
    recipe = {"quantization": {"algorithm": algorithm, "config_list": [entry()]}}
    session = tersely.attach(model, recipe)
    session.calibrate([inputs])
    session.compress()

    for _ in range(3):
        found = model(inputs)
        assert torch.allclose(found, dense(inputs), atol=1e-3)
        session.total_loss(found.square().mean()).backward()
        session.step()
        model.zero_grad()

    assert torch.allclose(model.eval()(inputs), dense(inputs), atol=1e-3)


@pytest.mark.parametrize("algorithm", ["ptq", "rtn", "gptq", "awq", "smoothquant", "adaround"])
def test_weights_of_grouped_transposed_convolutions_are_quantized_by_output_channel(algorithm):
    layer, shape = layer_of("grouped_transposed")
    layer.weight.data.mul_(
        torch.logspace(-3, 0, 6).reshape(2, 1, 3, 1, 1).expand(2, 2, 3, 1, 1).reshape(4, 3, 1, 1)
    )
    model = nn.Sequential(layer)
    inputs = torch.randn(16, *shape[1:])
    wanted = model(inputs).detach()
    config = [{"op_names": ["0"], "target_names": ["weight"], "granularity": "per_channel"}]

    session = tersely.quantize(model, config, algorithm=algorithm, data=[inputs])

    assert session.qparams()["0"]["weight"].scale.shape == (2, 3, 1, 1)
    error = (model(inputs) - wanted).square().mean((0, 2, 3)).sqrt()
    assert bool((error < 0.03 * wanted.std((0, 2, 3))).all())
    weight = session.integer_weights()["0"]["weight"]
    assert torch.equal(weight.dequantize(), model[0].weight.detach())
