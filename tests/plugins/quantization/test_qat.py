"""What qat tells the session that follows training."""

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

import tersely
from tersely.contracts.quantizer import FollowsTraining
from tersely.reporting.measuring.layers import compare_layers


def make(**options):
    return tersely.registry().quantizers["qat"](**options)


def test_by_default_99_percent_of_a_range_stay_and_quantizing_starts_at_once():
    quantizer = make()

    assert isinstance(quantizer, FollowsTraining)
    assert (quantizer.decay, quantizer.start_step, quantizer.freeze_step) == (0.99, 0, None)


def test_options_change_when_quantizing_starts_and_ranges_freeze():
    quantizer = make(decay=0.9, quant_start_step=10, freeze_step=100)

    assert (quantizer.decay, quantizer.start_step, quantizer.freeze_step) == (0.9, 10, 100)


def test_no_gradient_passes_where_a_value_is_clamped():
    assert make().clip_gradient is True


@pytest.mark.parametrize(
    ("options", "is_legal"),
    [
        ({"decay": 0.0, "quant_start_step": 0, "freeze_step": None}, True),
        ({"decay": 1.0}, False),
        ({"quant_start_step": -1}, False),
        ({"freeze_step": 1.5}, False),
        ({"start_step": 1}, False),
    ],
)
def test_options_are_checked(options, is_legal):
    schema = tersely.registry().quantizers.info("qat").options

    assert Draft202012Validator(schema).is_valid(options) is is_legal


def test_a_model_in_evaluation_mode_is_noticed_at_the_first_step():
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    session = tersely.attach(model, {"quantization": {"algorithm": "qat", "config_list": [entry]}})
    model(torch.ones(1, 4))

    with pytest.raises(tersely.SessionError, match=r"evaluation mode.*call model\.train\(\)"):
        session.step()

    model.train()(torch.ones(1, 4))
    session.step()
    assert session.steps == 1


def test_comparing_the_layers_for_a_report_moves_no_range() -> None:
    torch.manual_seed(0)
    dense, model = nn.Linear(4, 4), nn.Linear(4, 4)
    inputs = torch.randn(8, 4)
    entry = {"op_names": ["0"], "target_names": ["_input_", "weight"]}
    session = tersely.attach(
        nn.Sequential(model), {"quantization": {"algorithm": "qat", "config_list": [entry]}}
    )
    session.calibrate([inputs])
    session.compress()
    session.model.train()(inputs)
    with torch.no_grad():
        model._parameters["weight"].mul_(3)
    before = {name: one.clone() for name, one in session.model.state_dict().items()}

    compare_layers(nn.Sequential(dense), session.model, {"0": "weight"}, inputs)

    after = session.model.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items())
