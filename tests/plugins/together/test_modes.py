"""Calibrating and compressing in inference mode and under autocast, and values that are no floats."""

import copy

import pytest
import torch
from torch import nn

import tersely
from tersely.engine.isolation.precision import full_precision, plain_modes

QUANTIZERS = ["ptq", "qat", "lsq", "lsq_plus", "dorefa", "bnn"]
QUANTIZERS += ["rtn", "gptq", "awq", "smoothquant", "adaround"]
PRUNERS = ["level", "l1_norm", "wanda", "sparsegpt", "apoz", "mean_activation"]


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def recipe_of(algorithm):
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    options = {"iterations": 3} if algorithm == "adaround" else {}
    if algorithm in ("apoz", "mean_activation"):
        entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    elif algorithm in PRUNERS:
        entry["sparse_ratio"] = 0.5
    elif algorithm not in ("gptq", "awq", "adaround"):
        entry["target_names"] = ["_input_", "weight"]
    method = "pruning" if algorithm in PRUNERS else "quantization"
    return {method: {"algorithm": algorithm, "options": options, "config_list": [entry]}}


def compressed(algorithm, mode, batch):
    model = build()
    session = tersely.attach(model, recipe_of(algorithm))
    with mode:
        session.calibrate([batch()])
        session.compress()
    return model, session


def batch():
    return torch.randn(16, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("algorithm", [*QUANTIZERS, *PRUNERS])
def test_inference_mode_changes_nothing_and_the_model_trains(algorithm):
    wanted, _ = compressed(algorithm, torch.no_grad(), batch)

    model, session = compressed(algorithm, torch.inference_mode(), batch)

    inputs = batch()
    assert torch.equal(model(inputs), wanted(inputs))
    session.total_loss(model(inputs).square().mean()).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    session.step()


@pytest.mark.parametrize("algorithm", [*QUANTIZERS, *PRUNERS])
def test_autocast_around_both_changes_little(algorithm):
    wanted, _ = compressed(algorithm, torch.no_grad(), batch)

    model, _ = compressed(algorithm, torch.autocast("cpu", torch.bfloat16), batch)

    inputs = batch()
    found, dense = model(inputs), build()(inputs)
    assert found.dtype == torch.float32
    error = (wanted(inputs) - dense).square().mean()
    assert (found - dense).square().mean() < 1.5 * error + 1e-3


STAYING = pytest.mark.filterwarnings("ignore:.*stay instrumented")


@STAYING
@pytest.mark.parametrize("algorithm", [*QUANTIZERS, *PRUNERS])
def test_all_of_a_session_in_inference_mode_leaves_a_model_that_trains(algorithm):
    wanted, session = compressed(algorithm, torch.no_grad(), batch)
    session.finalize()

    with torch.inference_mode():
        model, session = compressed_outside(algorithm)
        session.finalize()

    inputs = batch()
    assert torch.equal(model(inputs), wanted(inputs))
    model(inputs).square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("algorithm", ["qat", "lsq", "level"])
def test_a_session_that_is_attached_and_detached_in_inference_mode_goes_on(algorithm):
    with torch.inference_mode():
        model, session = compressed_outside(algorithm)

    session.total_loss(model(batch()).square().mean()).backward()
    session.step()
    with torch.inference_mode():
        session.step()
        session.detach()
    model(batch()).square().mean().backward()


def compressed_outside(algorithm):
    with torch.inference_mode(False):
        model = build()
    session = tersely.attach(model, recipe_of(algorithm))
    session.calibrate([batch()])
    session.compress()
    return model, session


@STAYING
@pytest.mark.parametrize("algorithm", ["gptq", "level", "ptq", "smoothquant"])
def test_parameters_made_in_inference_mode_are_refused_before_anything_changes(algorithm):
    with torch.inference_mode():
        model = build()

    with pytest.raises(
        tersely.AttachError, match="'0' has 'weight', which was created in inference"
    ):
        tersely.attach(model, recipe_of(algorithm))

    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, nn.Linear]
    session = tersely.attach(copy.deepcopy(model), recipe_of(algorithm))
    session.calibrate([batch()])
    session.compress()
    session.finalize()


def test_a_norm_made_in_inference_mode_takes_no_factors_of_the_layer_after_it():
    with torch.inference_mode():
        norm = nn.LayerNorm(8)
    model = nn.Sequential(norm, nn.Linear(8, 4))
    session = tersely.attach(model, recipe_of("smoothquant"))
    session.calibrate([batch()])
    session.compress()
    assert [one.kind for one in session.report().remarks] == ["factors"]
    before = norm.weight.clone()
    with pytest.warns(UserWarning, match="stay instrumented"):
        session.finalize()
    assert torch.equal(norm.weight, before)


def test_a_batch_norm_made_in_inference_mode_is_not_folded():
    with torch.inference_mode():
        norm = nn.BatchNorm1d(16)
    model = nn.Sequential(nn.Linear(8, 16), norm)
    recipe = recipe_of("ptq")
    recipe["quantization"]["config_list"][0]["fuse_names"] = [["0", "1"]]
    with pytest.raises(
        tersely.AttachError, match="'1' has 'weight', which was created in inference"
    ):
        tersely.attach(model, recipe)


def test_modes_inside_are_plain_and_come_back():
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        with plain_modes():
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_autocast_enabled("cpu")
        with full_precision():
            assert torch.is_inference_mode_enabled()
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("algorithm", ["rtn", "ptq", "qat"])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_indices_are_no_values_to_quantize(algorithm, dtype):
    model = nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 4))
    entry = {"op_names": ["0"], "target_names": ["_input_", "weight"]}
    session = tersely.attach(
        model, {"quantization": {"algorithm": algorithm, "config_list": [entry]}}
    )
    indices = torch.tensor([0, 3], dtype=getattr(torch, dtype))

    def use():
        session.calibrate([indices])
        session.compress()
        model(indices)

    with pytest.raises(tersely.CalibrationError) as caught:
        use()

    assert str(caught.value) == (
        f"0._input_ holds {dtype}, but only floating-point values can be quantized; leave this "
        "target out with target_names"
    )


@pytest.mark.parametrize("algorithm", ["bnn", "dorefa", "lsq", "ptq", "gptq"])
@pytest.mark.parametrize("granularity", ["per_channel", "out_channel", "no_such", {"group": 3}])
def test_an_int32_bias_with_an_impossible_granularity_is_a_plan_error(algorithm, granularity):
    entry = {"op_types": ["Linear"], "quant_dtype": "int32", "granularity": granularity}
    recipe = {"quantization": {"algorithm": algorithm, "config_list": [entry]}}

    with pytest.raises((tersely.PlanError, tersely.ConfigError), match=r"int32|granularity"):
        tersely.plan(nn.Sequential(nn.Linear(8, 4)), recipe)
