"""Every kind of layer, norm and activation that folds, against the modules one by one (rule Q4)."""

import copy

import pytest
import torch
from torch import nn

import tersely

GENERATOR = torch.Generator().manual_seed(1)
INPUTS = {dims: torch.randn(3, 4, *(5,) * dims, generator=GENERATOR) for dims in (1, 2, 3)}
LAYERS = {
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3), nn.BatchNorm1d),
    "transposed2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1),
        nn.BatchNorm2d,
    ),
    "transposed3d": (lambda: nn.ConvTranspose3d(4, 6, 2, bias=False), nn.BatchNorm3d),
    "grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, padding=1), nn.BatchNorm2d),
    "depthwise": (lambda: nn.ConvTranspose1d(4, 4, 3, groups=4), nn.BatchNorm1d),
    "synchronized": (lambda: nn.Conv2d(4, 6, 3), nn.SyncBatchNorm),
    "both": (lambda: nn.ConvTranspose2d(4, 6, 3), nn.SyncBatchNorm),
}
ACTIVATIONS = [
    nn.ELU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.Hardsigmoid(), nn.Hardswish(),
    nn.Hardtanh(-0.5, 0.5), nn.LeakyReLU(0.1), nn.Mish(), nn.ReLU(), nn.ReLU6(), nn.Sigmoid(),
    nn.SiLU(inplace=True), nn.Tanh(),
]  # fmt: skip


def build(kind, *rest):
    torch.manual_seed(0)
    layer, norm_class = LAYERS[kind]
    layer = layer()
    norm = norm_class(layer.out_channels)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    return nn.Sequential(layer, norm, *rest)


def inputs(model):
    return INPUTS[len(model[0].kernel_size)]


def fused(model, targets=("weight",)):
    return [
        {
            "op_names": ["0"],
            "target_names": list(targets),
            "fuse_names": [[str(index) for index in range(len(model))]],
            "quant_dtype": "int16",
        }
    ]


@pytest.mark.parametrize("kind", LAYERS)
def test_it_computes_what_the_modules_compute_and_stays_so(kind, attach):
    model = build(kind, nn.ReLU()).eval()
    expected = model(inputs(model))
    session = attach(model, "toy_range", fused(model))
    session.compress()
    simulated = model(inputs(model))
    weight = session.integer_weights()["0"]["weight"].dequantize()
    session.finalize()

    # 16 bits: a step is a 32767th of the largest weight.
    torch.testing.assert_close(simulated, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model(inputs(model)), simulated)
    assert type(model[1]) is LAYERS[kind][1]
    assert torch.equal(model[0].weight, weight)


def test_the_folded_weight_of_a_grouped_transposed_convolution_by_hand(attach):
    model = nn.Sequential(nn.ConvTranspose1d(2, 4, 1, groups=2), nn.BatchNorm1d(4, eps=0.0)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]))
        model[0].bias.copy_(torch.tensor([1.0, 1.0, 1.0, 1.0]))
        model[1].running_mean.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
        model[1].running_var.copy_(torch.tensor([1.0, 4.0, 1.0, 4.0]))
        model[1].weight.copy_(torch.tensor([1.0, 2.0, 3.0, 8.0]))
        model[1].bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.5]))
    attach(model, "toy_range", fused(model))

    # gamma / sqrt(var) is 1, 1, 3, 4: input 0 makes outputs 0 and 1, input 1 outputs 2 and 3.
    assert model[0].weight.tolist() == [[[1.0], [2.0]], [[9.0], [16.0]]]
    assert model[0].bias.tolist() == [1.0, 0.0, -2.5, -7.5]


@pytest.mark.parametrize("kind", LAYERS)
def test_statistics_are_those_of_the_dense_model(kind, attach):
    dense = build(kind)
    model = copy.deepcopy(dense)
    session = attach(model, "toy_follow", fused(model))
    for one in (dense, model):
        one.train()
        for _ in range(3):
            one(inputs(model))
    session.step()

    assert torch.equal(model[1].running_mean, dense[1].running_mean)
    assert torch.equal(model[1].running_var, dense[1].running_var)


def test_a_size_that_the_call_asks_for_counts_for_the_statistics_too(attach):
    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(4, 6, 3, stride=2)
            self.norm = nn.BatchNorm2d(6)

        def forward(self, x):
            return self.norm(self.up(input=x, output_size=[12, 12]))

    torch.manual_seed(0)
    dense = Up()
    model = copy.deepcopy(dense)
    entry = {"op_names": ["up"], "target_names": ["weight"], "fuse_names": [["up", "norm"]]}
    attach(model, "toy_follow", [entry])
    for one in (dense, model):
        assert one(INPUTS[2]).shape == (3, 6, 12, 12)

    assert torch.equal(model.norm.running_mean, dense.norm.running_mean)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("has_norm", [True, False])
def test_an_output_is_quantized_after_the_activation(activation, has_norm, attach):
    model = build("synchronized").eval()
    model = nn.Sequential(*(model if has_norm else model[:1]), copy.deepcopy(activation))
    expected = model(INPUTS[2])
    session = attach(model, "toy_range", fused(model, ("weight", "_output_")))
    session.calibrate([INPUTS[2]])
    session.compress()
    simulated = model(INPUTS[2])

    scale = session.qparams()["0"]["_output_"].scale.item()
    assert scale == pytest.approx(expected.abs().max().item() / 32767, rel=1e-3)
    torch.testing.assert_close(simulated, expected, rtol=1e-3, atol=1e-3)
    with pytest.warns(UserWarning, match=r"0\._output_"):
        session.finalize()
    torch.testing.assert_close(model(INPUTS[2]), simulated)


def test_a_batch_norm_takes_an_activation(attach):
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()).eval()
    session = attach(model, "toy_range", fused(model, ("_output_",)))
    session.calibrate([INPUTS[2]])
    session.compress()

    largest = INPUTS[2].max().item() / (1 + 1e-5) ** 0.5
    scale = session.qparams()["0"]["_output_"].scale.item()
    assert scale == pytest.approx(largest / 32767, rel=1e-4)


def test_a_saved_session_of_a_transposed_convolution_folds_again(attach, tmp_path):
    model = build("grouped", nn.GELU()).eval()
    dense = copy.deepcopy(model)
    session = attach(model, "toy_range", fused(model, ("_input_", "weight", "_output_")))
    session.calibrate([INPUTS[2]])
    session.compress()
    session.save(tmp_path / "session")
    tersely.load_session(dense, tmp_path / "session")

    assert torch.equal(dense(INPUTS[2]), model(INPUTS[2]))


def test_gradients_reach_a_transposed_convolution_and_its_norm(attach):
    model = build("grouped")
    session = attach(model, "toy_range", fused(model))
    session.compress()
    model(INPUTS[2]).sum().backward()

    assert all(parameter.grad is not None for parameter in model.parameters())
