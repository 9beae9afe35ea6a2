"""Biases in the terms of their accumulator (rule Q1.5), and biases that are corrected."""

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import CorrectsBias, ObservesInputs

BIASED = {"_input_": {}, "weight": {}, "bias": {"quant_dtype": "int32"}}


def entry(**settings):
    targets = {**BIASED, **settings}
    return [
        {
            "op_names": ["0"],
            "target_names": list(targets),
            "target_settings": {name: value for name, value in targets.items() if value},
        }
    ]


@pytest.fixture
def model():
    """Weight scales of 0.01 and 0.1, one for each output."""
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.27, 0.0], [0.0, 12.7]]))
        model[0].bias.copy_(torch.tensor([0.25004, -0.5]))
    return model


def ready(session):
    session.calibrate([torch.tensor([[127.0, 0.5]])])
    session.compress()
    return session


def test_its_scale_is_that_of_the_input_times_that_of_the_weight(model, attach):
    session = ready(attach(model, "toy_range", entry()))
    found = session.integer_weights()["0"]["bias"]

    # 1 * 0.1: 2.5004 steps are 3, and 5 steps are 5.
    assert found.qparams.scale.item() == pytest.approx(0.1)
    assert found.qparams.zero_point.item() == 0
    assert found.values.tolist() == [3, -5]
    assert found.values.dtype is torch.int32
    torch.testing.assert_close(model[0].bias.detach(), torch.tensor([0.3, -0.5]))
    assert torch.equal(found.dequantize(), model[0].bias)


def test_each_channel_has_its_own(model, attach):
    session = ready(attach(model, "toy_range", entry(weight={"granularity": "toy_rows"})))
    found = session.integer_weights()["0"]["bias"]

    # 1 * 0.01 and 1 * 0.1
    assert found.qparams.scale.tolist() == pytest.approx([0.01, 0.1])
    assert found.values.tolist() == [25, -5]
    assert torch.equal(found.dequantize(), model[0].bias)


def test_finalizing_bakes_it(model, attach):
    session = ready(attach(model, "toy_range", entry()))
    expected = model[0].bias.detach().clone()
    with pytest.warns(UserWarning, match=r"0\._input_"):
        session.finalize()

    assert torch.equal(model[0].bias, expected)


def test_it_follows_scales_that_are_learned(model, attach):
    session = ready(attach(model, "toy_learn", entry()))
    (1e-4 * model[0].weight.sum()).backward()
    session.step()
    scales = session.qparams()["0"]

    torch.testing.assert_close(
        scales["bias"].scale.float(), scales["_input_"].scale * scales["weight"].scale
    )


@pytest.mark.parametrize(
    ("target_names", "text"),
    [
        (["weight", "bias"], "_input_ of this module is not quantized"),
        (["_input_", "bias"], "weight of this module is not quantized"),
        (["bias"], "_input_ and weight of this module is not quantized"),
    ],
)
def test_it_needs_an_input_and_a_weight(model, target_names, text):
    config = entry()[0] | {"target_names": target_names}
    document = {"quantization": {"algorithm": "toy_range", "config_list": [config]}}

    with pytest.raises(tersely.PlanError, match=text):
        tersely.plan(model, document)


def test_no_other_target_has_that_type(model):
    config = {"op_names": ["0"], "target_names": ["weight"], "quant_dtype": "int32"}
    document = {"quantization": {"algorithm": "toy_range", "config_list": [config]}}

    with pytest.raises(tersely.PlanError, match=r"quant_dtype 'int32' is for a bias"):
        tersely.plan(model, document)


def test_an_input_with_many_scales_is_refused(model):
    config = entry(_input_={"granularity": "toy_pairs"})
    document = {"quantization": {"algorithm": "toy_range", "config_list": config}}

    with pytest.raises(tersely.PlanError, match="and toy_pairs gives it several"):
        tersely.plan(model, document)


def test_a_weight_with_other_blocks_than_channels_is_refused(model):
    config = entry(weight={"granularity": "toy_elements"})
    document = {"quantization": {"algorithm": "toy_range", "config_list": config}}

    with pytest.raises(tersely.PlanError, match="or one for each output channel"):
        tersely.plan(model, document)


def test_an_input_with_a_scale_for_each_channel_by_default_is_refused(model):
    """An algorithm may cut everything into channels without being told."""
    document = {"quantization": {"algorithm": "toy_range_channels", "config_list": entry()}}

    with pytest.raises(tersely.PlanError, match="its input has one scale"):
        tersely.plan(model, document)


class Corrects(ObservesInputs, CorrectsBias):
    """Adds the mean input of its layer to the bias."""

    def observe_input(self, inputs, target):
        return {"sum": inputs.sum(0), "count": torch.tensor(float(len(inputs)))}

    def bias_correction(self, target, quantized):
        return target.observed["sum"] / target.observed["count"]


class TwoLayers(nn.Module):
    """A model that never calls its second layer."""

    def __init__(self):
        super().__init__()
        self.called, self.left_out = (nn.Linear(2, 2) for _ in range(2))

    def forward(self, value):
        return self.called(value)


def test_a_bias_is_corrected_only_by_what_was_observed(provide_quantizers):
    model = TwoLayers()
    before = {name: bias.detach().clone() for name, bias in model.named_parameters()}
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    stage = {"algorithm": "corrects", "unreached": "rtn", "config_list": [entry]}
    with provide_quantizers(corrects=Corrects):
        session = tersely.attach(model, {"quantization": stage})
        session.calibrate([torch.tensor([[1.0, 2.0], [3.0, 4.0]])])
        session.compress()
    torch.testing.assert_close(model.called.bias, before["called.bias"] + torch.tensor([2.0, 3.0]))
    assert torch.equal(model.left_out.bias, before["left_out.bias"])
    assert session.qparams()["left_out"]["weight"].scale > 0
