"""Family order: one tensor through several methods."""

import pytest
import torch

import tersely
from tersely.arithmetic.affine import fake_quantize
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import quantized_range
from tersely.instrument.masks.mask_transforms import ParameterMask


@pytest.mark.spec("order", expects="fake_quantize")
def test_values(case):
    given, expect = case["given"], case["expect"]
    values = torch.tensor(given["values"], dtype=torch.float64)
    kept = torch.tensor(given["kept"], dtype=torch.float64)
    is_additive = given["apply_method"] == "add"
    mask = (1 - kept) * given["mask_value"] if is_additive else kept
    module = torch.nn.Module()
    module.register_buffer("mask", mask)
    offset = given["mask_value"] if is_additive else 0.0
    masked = ParameterMask("mask", is_additive, offset)(module, values)
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


@pytest.fixture
def tapped(provide):
    """Register the loss ``spec_probe``; what it was given by the student."""
    seen = []

    def probe(student, teacher):
        seen.append(student.detach().clone())
        return (student - teacher).square().mean()

    info = tersely.LossInfo(name="spec_probe", implementation="tersely_spec_probe:probe")
    with provide("tersely_spec_probe", info, probe=probe):
        yield seen


@pytest.mark.spec("order", expects="tap")
def test_tap(case, tapped):
    given = case["given"]
    model, teacher = (torch.nn.Linear(len(given["values"]), 1, bias=False) for _ in range(2))
    model.load_state_dict({"weight": torch.tensor([given["values"]])})
    target = {"op_types": ["Linear"], "target_names": ["weight"]}
    quantized = {**target, "quant_dtype": given["quant_dtype"]}
    recipe = {
        "pruning": {"algorithm": "level", "config_list": [{**target, "sparse_ratio": 0}]},
        "quantization": {"algorithm": "ptq", "config_list": [quantized]},
        "distillation": {"config_list": [{**target, "apply_method": "spec_probe"}]},
    }
    session = tersely.attach(model, recipe, teacher=teacher)
    session.compress()
    session.set_masks({"": {"weight": torch.tensor([given["kept"]]).bool()}})
    # A checkpoint brings scales under the names of the model's buffers.
    [scale] = [name for name in model.state_dict() if name.endswith("_scale")]
    model.state_dict()[scale].fill_(given["scale"])
    assert given["zero_point"] == 0
    session.loss()
    torch.testing.assert_close(tapped, [torch.tensor([case["expect"]["tap"]])])


@pytest.mark.spec("order", has="recipe")
def test_methods(case, models):
    weight = {"weight": {"shape": [2, 2]}, "bias": None}
    model = models.build({"modules": [{"name": "a", "type": "Linear", "parameters": weight}]})
    plan = tersely.plan(model, case["given"]["recipe"])
    assert [target.method for target in plan] == case["expect"]["methods_in_order"]
