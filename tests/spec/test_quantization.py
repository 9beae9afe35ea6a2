"""Family quantization: ranges, scales, fake-quantized values and gradients."""

import pytest
import torch
from torch import nn

import laconic
from laconic.affine import fake_quantize, quantized_range
from laconic.algorithms import QParams, QuantizationTarget
from laconic.blocks import Blocks
from laconic.planning.plan import Origin, Setting, TargetPlan


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def quantization_target(dtype, scheme, size):
    limits = quantized_range(dtype)
    plan = TargetPlan(
        "layer", "weight", "parameter", "quantization", "ptq", Setting(), Origin("the case")
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
    zero_point = given["zero_point"]
    scale = tensor(given["scale"])
    return QParams(
        scale=scale,
        zero_point=torch.zeros_like(scale) if zero_point is None else tensor(zero_point),
        quant_min=limits.quant_min,
        quant_max=limits.quant_max,
        dtype=given["quant_dtype"],
        scheme="symmetric",
        block_size=given.get("size"),
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
    found = laconic.choose_qparams(low, high, target)
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
