"""Pruning and quantization in one recipe, by the official algorithms."""

import warnings

import pytest
import torch
from torch import nn

import tersely

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def recipe(quantizer, pruner="level", **options):
    return {
        "pruning": {
            "algorithm": pruner,
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        },
        "quantization": {
            "algorithm": quantizer,
            "options": options,
            "config_list": [{"op_types": ["Linear"], "target_names": ["_input_", "weight"]}],
        },
    }


@pytest.mark.parametrize(
    "quantizer", ["ptq", "qat", "lsq", "rtn", "gptq", "awq", "smoothquant", "adaround"]
)
def test_what_is_masked_stays_zero(quantizer):
    options = {"iterations": 20} if quantizer == "adaround" else {}
    session = tersely.attach(build(), recipe(quantizer, **options))
    session.calibrate([X])
    session.compress()

    for name in ("0", "2"):
        kept = session.masks()[name]["weight"]
        weight = session.model[int(name)].weight
        assert bool((weight[~kept] == 0).all())
        integers = session.integer_weights()[name]["weight"]
        assert torch.equal(integers.dequantize(), weight)
    expected = session.model(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        session.finalize()
    # Factors of input channels are divided out again, which rounds.
    tolerance = 1e-5 if quantizer in ("awq", "smoothquant") else 0
    torch.testing.assert_close(session.model(X), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("quantizer", ["ptq", "lsq", "awq", "smoothquant"])
def test_scales_are_those_of_a_model_that_was_pruned_before(quantizer):
    together = tersely.attach(build(), recipe(quantizer))
    together.calibrate([X])
    together.compress()

    model = build()
    config = recipe(quantizer)
    pruned = tersely.prune(model, config["pruning"]["config_list"], algorithm="level")
    pruned.finalize()
    alone = tersely.attach(model, {"quantization": config["quantization"]})
    alone.calibrate([X])
    alone.compress()

    for name in ("0", "2"):
        for target in ("_input_", "weight"):
            assert torch.equal(
                together.qparams()[name][target].scale, alone.qparams()[name][target].scale
            )
    assert torch.equal(together.model(X), model(X))


def test_detaching_gives_the_dense_model_back():
    model = build()
    dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    session = tersely.attach(model, recipe("gptq", pruner="sparsegpt"))
    session.calibrate([X])
    session.compress()
    session.detach()

    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, dense[name])
