"""Granularities of transposed convolutions that an algorithm of another family asks for."""

import pytest
from torch import nn

import tersely


def test_a_group_of_a_transposed_convolutions_bias_is_an_error_that_names_the_bias():
    model = nn.Sequential(nn.ConvTranspose2d(8, 4, 2))
    entry = {"op_names": ["0"], "quant_dtype": "int4", "granularity": {"group": 4}}
    recipe = {"quantization": {"algorithm": "ptq", "config_list": [entry]}}
    with pytest.raises(tersely.PlanError, match=r"0\.bias of shape \[4\] has none"):
        tersely.plan(model, recipe)
