"""Masks of weights whose inputs are scaled."""

import pytest
import torch
from torch import nn

import tersely
from tersely.session.finalizing.baking import FinalizeWarning


def test_masked_weights_stay_zero_when_factors_are_divided_out():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(8, 6)), torch.randn(64, 8)
    inputs[:, ::3] *= 30
    recipe = {
        "pruning": {
            "algorithm": "level",
            "config_list": [{"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}],
        },
        "quantization": {
            "algorithm": "smoothquant",
            "config_list": [{"op_names": ["0"], "target_names": ["_input_", "weight"]}],
        },
    }
    session = tersely.attach(model, recipe)
    session.calibrate([inputs])
    session.compress()
    kept = session.masks()["0"]["weight"]
    with pytest.warns(FinalizeWarning):
        session.finalize()

    assert not model[0].weight[~kept].any()
