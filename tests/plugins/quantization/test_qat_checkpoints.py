"""A checkpoint of a model in quantization-aware training loads into one that was just attached."""

import torch
from torch import nn

import tersely

ENTRY = {"op_types": ["Linear"], "target_names": ["_input_", "weight"], "quant_dtype": "int8"}
RECIPE = {"quantization": {"algorithm": "qat", "config_list": [ENTRY]}}


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_ranges_and_scales_come_with_the_weights():
    model, fresh = build(), build()
    session = tersely.attach(model, RECIPE)
    again = tersely.attach(fresh, RECIPE)
    inputs = torch.arange(12.0).view(3, 4)
    model(inputs)
    session.step()

    fresh.load_state_dict(model.state_dict())

    # Inputs 0 .. 11, int8 symmetric: 11 / ((127 + 127) / 2) is one step.
    assert again.qparams()["0"]["_input_"].scale.item() == torch.tensor(11 / 127).item()
    assert torch.equal(fresh.eval()(inputs), model.eval()(inputs))
    for one in (model.train(), fresh.train()):
        one(inputs * 2)
    for name, value in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
