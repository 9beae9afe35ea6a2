"""Family order: one tensor through several methods."""

import pytest
import torch

import laconic
from laconic.affine import fake_quantize, quantized_range
from laconic.algorithms import QParams
from laconic.instrument.masks import ParameterMask


@pytest.mark.spec("order", has="values")
def test_values(case):
    given, expect = case["given"], case["expect"]
    values = torch.tensor(given["values"], dtype=torch.float64)
    kept = torch.tensor(given["kept"], dtype=torch.float64)
    is_additive = given["apply_method"] == "add"
    mask = (1 - kept) * given["mask_value"] if is_additive else kept
    module = torch.nn.Module()
    module.register_buffer("mask", mask)
    masked = ParameterMask("mask", is_additive)(module, values)
    limits = quantized_range(given["quant_dtype"])
    qparams = QParams(
        scale=torch.tensor(given["scale"], dtype=torch.float64),
        zero_point=torch.tensor(given["zero_point"]),
        quant_min=limits.quant_min,
        quant_max=limits.quant_max,
        dtype=given["quant_dtype"],
        scheme="symmetric",
    )
    torch.testing.assert_close(masked, torch.tensor(expect["mask"], dtype=torch.float64))
    quantized = fake_quantize(masked, qparams)
    expected = torch.tensor(expect["fake_quantize"], dtype=torch.float64)
    torch.testing.assert_close(quantized, expected)


@pytest.mark.spec("order", has="recipe")
def test_methods(case, models):
    weight = {"weight": {"shape": [2, 2]}, "bias": None}
    model = models.build({"modules": [{"name": "a", "type": "Linear", "parameters": weight}]})
    plan = laconic.plan(model, case["given"]["recipe"])
    assert [target.method for target in plan] == case["expect"]["methods_in_order"]
