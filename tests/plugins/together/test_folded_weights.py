"""Weights that are folded with a batch norm, quantized by algorithms that change them."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import tersely

IMAGES = torch.randn(32, 4, 6, 6, generator=torch.Generator().manual_seed(0)) + 1
LAYERS = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
}


def network(layer: nn.Module, *, affine: bool = True) -> nn.Module:
    """Return a layer with a batch norm that has seen images, one channel times zero."""
    torch.manual_seed(0)
    model = nn.Sequential(layer, nn.BatchNorm2d(6, affine=affine))
    model(IMAGES)
    if affine:
        with torch.no_grad():
            model[1].weight.copy_(torch.tensor([0.0, 0.2, -1.0, 3.0, 1.0, 0.5]))
            model[1].bias.normal_()
    return model.eval()


def quantized(model: nn.Module, algorithm: str, *targets: str, **options: Any) -> tersely.Session:
    entry = {
        "op_names": ["0"],
        "target_names": list(targets),
        "quant_dtype": "int4",
        "target_settings": {"weight": {"granularity": "per_channel"}},
    }
    return tersely.quantize(
        model,
        [entry],
        algorithm=algorithm,
        options=options,
        fuse_names=[["0", "1"]],
        data=[IMAGES],
    )


def of_folded(model: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Return what each output channel of a weight is in the place of its batch norm."""
    norm = model[1]
    factors = norm.weight / (norm.running_var + norm.eps).sqrt()
    if isinstance(model[0], nn.ConvTranspose2d):
        groups, (inputs, outputs) = model[0].groups, values.shape[:2]
        each = factors.view(groups, 1, outputs).expand(groups, inputs // groups, outputs)
        return values * each.reshape(inputs, outputs, 1, 1)
    return values * factors.view(-1, 1, 1, 1)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("algorithm", ["rtn", "gptq", "awq", "smoothquant", "adaround"])
def test_the_folded_weight_is_what_is_solved(algorithm: str, kind: str) -> None:
    model = network(LAYERS[kind]())
    dense = copy.deepcopy(model)
    with torch.no_grad():
        wanted = dense(IMAGES)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    session = quantized(model, algorithm, "weight")
    with torch.no_grad():
        simulated = model(IMAGES)
    values = session.integer_weights()["0"]["weight"].dequantize()
    error = (simulated - wanted).norm() / wanted.norm()

    assert 0 < error < 0.15
    folded = of_folded(dense, dense[0].weight.detach())
    assert (values - folded).abs().max() <= 1.01 * session.qparams()["0"]["weight"].scale.max()
    session.detach()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:a plain module cannot")  # whose input stays quantized
@pytest.mark.parametrize("algorithm", ["gptq", "awq", "smoothquant", "adaround"])
def test_a_finished_model_computes_what_was_simulated(algorithm: str) -> None:
    model = network(LAYERS["convolution"]())
    keys = list(model.state_dict())

    session = quantized(model, algorithm, "weight", "_input_")
    with torch.no_grad():
        simulated = model(IMAGES)
        session.finalize()
        finished = model(IMAGES)

    torch.testing.assert_close(finished, simulated)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_the_bias_that_is_corrected_is_the_one_in_force(*, affine: bool, bias: bool) -> None:
    model = network(nn.Conv2d(4, 6, 3, bias=bias), affine=affine)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        dense = model(IMAGES)
    shifts = {}

    for corrected in (False, True):
        session = quantized(model, "ptq", "weight", bias_correction=corrected)
        with torch.no_grad():
            shifts[corrected] = float((model(IMAGES) - dense).mean((0, 2, 3)).abs().max())
        session.detach()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    assert shifts[False] > 1e-2
    # without a bias anywhere there is nothing to correct
    assert (shifts[True] < 1e-5) == (affine or bias)


def test_a_corrected_norm_is_saved_and_cut_with_its_channels(tmp_path: Any) -> None:
    model = network(LAYERS["convolution"]())
    fresh = copy.deepcopy(model)
    session = quantized(model, "ptq", "weight", bias_correction=True)
    session.save(tmp_path)

    again = tersely.load_session(fresh, tmp_path)

    with torch.no_grad():
        assert torch.equal(fresh(IMAGES), model(IMAGES))
    again.detach()
    assert torch.equal(fresh[1].bias, network(LAYERS["convolution"]())[1].bias)


def test_a_corrected_norm_is_cut_with_its_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )
    model(IMAGES)
    model.eval()
    rows = {"op_names": ["0"], "sparse_ratio": 0.5, "granularity": "out_channel"}
    follows = {"module_name": "0", "target_name": "weight", "dims": [0]}
    norm = {
        "op_names": ["1"],
        "target_names": ["weight", "bias"],
        "target_settings": {"weight": {"align": follows}, "bias": {"align": follows}},
    }
    entry = {"op_names": ["0"], "target_names": ["weight"], "quant_dtype": "int4"}
    session = tersely.attach(
        model,
        {
            "pruning": {"algorithm": "l1_norm", "config_list": [rows, norm]},
            "quantization": {
                "algorithm": "ptq",
                "options": {"bias_correction": True},
                "config_list": [{**entry, "fuse_names": [["0", "1"]]}],
            },
        },
    )
    session.calibrate([IMAGES])
    session.compress()
    with torch.no_grad():
        masked = model(IMAGES)
        session.shrink((IMAGES[:2],))
        torch.testing.assert_close(model(IMAGES), masked)
    corrected = model[1].bias.detach().clone()

    session.detach()

    assert model[1].bias.shape == (3,)
    assert not torch.equal(model[1].bias, corrected)
