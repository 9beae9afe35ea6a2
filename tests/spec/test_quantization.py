"""Family quantization: ranges, scales, fake-quantized values and gradients."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tersely
from tersely.arithmetic.affine import fake_quantize
from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import quantized_range
from tersely.contracts import Equalizes, FollowsTraining, ObservesInputs, SolvesWeights
from tersely.contracts.quantizer import QuantizationTarget
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import Origin, TargetPlan


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def quantization_target(dtype, scheme, size):
    limits = quantized_range(dtype)
    plan = TargetPlan(
        "layer",
        "weight",
        "parameter",
        "quantization",
        "ptq",
        QuantizationSetting(),
        Origin("the case"),
    )
    return QuantizationTarget(
        plan=plan,
        quant_min=limits.quant_min,
        quant_max=limits.quant_max,
        dtype=dtype,
        scheme=scheme,
        blocks=Blocks(size),
        module=nn.Identity(),
    )


def qparams(given):
    limits = quantized_range(given["quant_dtype"])
    scale, given_zero = tensor(given["scale"]), given["zero_point"]
    kept = torch.float64 if given.get("has_float_zero_point") else torch.int32
    zero_point = torch.tensor(given_zero or 0, dtype=kept).expand(scale.shape)
    return QParams(
        scale=scale,
        zero_point=zero_point,
        quant_min=limits.quant_min,
        quant_max=limits.quant_max,
        dtype=given["quant_dtype"],
        scheme="symmetric",
        block_size=Blocks(index=given["index"]).size if "index" in given else given.get("size"),
        levels=tensor(given["levels"]) if "levels" in given else None,
    )


@pytest.mark.spec("quantization", what="range")
def test_range(case):
    limits = quantized_range(case["given"]["quant_dtype"])
    assert {"quant_min": limits.quant_min, "quant_max": limits.quant_max} == case["expect"]


@pytest.mark.spec("quantization", what="choose")
def test_choose(case):
    given, expect = case["given"], case["expect"]
    low, high = tensor(given["low"]), tensor(given["high"])
    size = (-1,) if low.ndim == 0 else (1, -1)
    target = quantization_target(given["quant_dtype"], given["quant_scheme"], size)
    found = tersely.choose_qparams(low, high, target)
    torch.testing.assert_close(found.scale, tensor(expect["scale"]))
    zero_point = 0 if expect["zero_point"] is None else expect["zero_point"]
    assert found.zero_point.tolist() == zero_point


@pytest.mark.spec("quantization", what="fake_quantize")
def test_fake_quantize(case):
    given = case["given"]
    found = fake_quantize(tensor(given["values"]), qparams(given))
    torch.testing.assert_close(found, tensor(case["expect"]["result"]))


@pytest.mark.spec("quantization", what="gradient")
def test_gradient(case):
    given = case["given"]
    values = tensor(given["values"]).requires_grad_()
    clips = given["apply_method"] == "qat_clamp_round"
    result = fake_quantize(values, qparams(given), clip_gradient=clips)
    result.backward(tensor(given["gradient_of_result"]))
    assert values.grad.tolist() == case["expect"]["gradient"]


@pytest.fixture
def spy(provide):
    """Register ``spy`` and ``spy_training``: what they are asked, and which scales they answer."""

    ranges, scales = {}, {}

    class Spy:
        def choose(self, low, high, target):
            ranges[target.name] = (low.item(), high.item()) if low.numel() == 1 else None
            qparams = tersely.choose_qparams(low, high, target)
            scale = torch.tensor(scales.get(target.plan.target, 1.0)).expand(qparams.scale.numel())
            return qparams.evolve(scale=scale.reshape(qparams.scale.shape))

    class SpyTraining(Spy, FollowsTraining):
        decay, start_step, freeze_step = 0.99, 0, None

    class SpyScaling(Spy, ObservesInputs, SolvesWeights, Equalizes):
        def observe_input(self, inputs, target):
            return {"count": torch.ones(())}

        def input_scales(self, targets):
            return torch.tensor(scales["factors"])

        def solve_scaled(self, target, input_scale):
            low, high = tersely.block_range(target.tensor, target.blocks.size)
            qparams = self.choose(low, high, target)
            rounded = tersely.fake_quantize(target.tensor * input_scale, qparams)
            return tersely.QuantizedWeight(rounded, qparams, input_scale)

        def solve(self, target):
            return self.solve_scaled(target, self.input_scales([target]))

    made = {"spy": Spy, "spy_training": SpyTraining, "spy_scaling": SpyScaling}
    infos = (tersely.QuantizerInfo(name=one, implementation=f"spies:{one}") for one in made)
    with provide("spies", *infos, **made):
        yield SimpleNamespace(ranges=ranges, scales=scales)


def quantizing(algorithm, **entry):
    return {"algorithm": algorithm, "config_list": [{"op_names": ["0"], **entry}]}


def layer_of(values):
    """A linear layer with these weights."""
    layer = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values]))
    return layer


@pytest.mark.spec("quantization", what="bias")
def test_bias(case, spy):
    given, expect = case["given"], case["expect"]
    spy.scales.update({"_input_": given["input_scale"], "weight": given["weight_scale"]})
    model = nn.Sequential(nn.Linear(1, len(given["values"])))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor(given["values"]))
    settings = {"bias": {"quant_dtype": given["quant_dtype"]}}
    if isinstance(given["weight_scale"], list):
        settings["weight"] = {"granularity": "per_channel"}
    names = ["_input_", "weight", "bias"]
    stage = quantizing("spy", target_names=names, target_settings=settings)
    session = tersely.attach(model, {"quantization": stage})
    session.calibrate([torch.ones(1, 1)])
    session.compress()
    found = session.integer_weights()["0"]["bias"]
    assert found.qparams.scale.tolist() == pytest.approx(expect["scale"])
    assert bool((found.qparams.zero_point == expect["zero_point"]).all())
    assert found.dequantize().tolist() == pytest.approx(expect["result"])
    assert torch.equal(found.dequantize(), model[0].bias)


@pytest.mark.spec("quantization", what="fold")
def test_fold(case, spy):
    given, expect = case["given"], case["expect"]
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, eps=given["eps"]))
    layer, norm = model
    with torch.no_grad():
        for tensor, name in (
            (layer.weight, "weight"),
            (layer.bias, "bias"),
            (norm.weight, "gamma"),
            (norm.bias, "beta"),
            (norm.running_mean, "mean"),
            (norm.running_var, "var"),
        ):
            tensor.copy_(torch.tensor(given[name]))
    stage = quantizing("spy", target_names=["weight"], fuse_names=[["0", "1"]])
    tersely.attach(model, {"quantization": stage})
    assert layer.weight.tolist() == expect["weight"]
    assert layer.bias.tolist() == expect["bias"]


class Reading(nn.Module):
    """A linear layer that reads what another makes, alone or beside a sum of it."""

    def __init__(self, is_read_elsewhere):
        super().__init__()
        self.producer, self.layer = nn.Linear(2, 2), nn.Linear(2, 1, bias=False)
        self.is_read_elsewhere = is_read_elsewhere

    def forward(self, x):
        x = self.producer(x)
        return self.layer(x) + (x.sum() if self.is_read_elsewhere else 0)


@pytest.mark.spec("quantization", what="factors")
def test_factors(case, spy):
    given = case["given"]
    model = Reading(given["is_read_elsewhere"])
    tensors = {
        "producer_weight": model.producer.weight,
        "producer_bias": model.producer.bias,
        "weight": model.layer.weight,
    }
    with torch.no_grad():
        for name, parameter in tensors.items():
            parameter.copy_(torch.tensor(given[name]))
    spy.scales["factors"] = [float(one) for one in given["factors"]]
    stage = quantizing("spy_scaling", op_names=["layer"], target_names=["weight"])
    session = tersely.attach(model, {"quantization": stage})
    session.calibrate([torch.tensor([[1.0, 2.0]])])
    session.compress()
    session.finalize()
    assert {name: one.tolist() for name, one in tensors.items()} == case["expect"]


@pytest.mark.spec("quantization", what="observe", has="kept")
def test_observe_masked(case, spy):
    given, expect = case["given"], case["expect"]
    model = nn.Sequential(layer_of([float(one) for one in given["values"]]))
    recipe = {
        "pruning": {
            "algorithm": "level",
            "config_list": [{"op_names": ["0"], "sparse_ratio": 0.0}],
        },
        "quantization": quantizing("spy", target_names=["weight"]),
    }
    session = tersely.attach(model, recipe)
    session.set_masks({"0": {"weight": torch.tensor([given["kept"]]).bool()}}, freeze=True)
    session.compress()
    assert spy.ranges["0.weight"] == (expect["low"], expect["high"])


@pytest.mark.spec("quantization", what="observe", has="batches")
def test_observe(case, spy, models):
    given, expect = case["given"], case["expect"]
    values = models.nested(given["batches"])
    batches = [torch.tensor([batch], dtype=torch.float32) for batch in values]
    model = nn.Sequential(layer_of([1.0, 1.0]))
    is_training = given["mode"] == "training"
    stage = quantizing("spy_training" if is_training else "spy", target_names=["_input_"])
    session = tersely.attach(model, {"quantization": stage})
    if is_training:
        for batch in batches:
            model(batch)
            told = not batch.isfinite().all() and not session.steps > 1  # once
            with pytest.warns(UserWarning, match="not finite") if told else nullcontext():
                session.step()
    else:
        session.calibrate(batches)
        session.compress()
    assert spy.ranges["0._input_"] == pytest.approx((expect["low"], expect["high"]))
