"""Bit widths that a search chooses for the entries of a preset."""

import torch
from torch import nn

import tersely
from tersely.searching.chosen_recipes import chosen_recipe
from tersely.searching.units import Level, units_of


def test_inputs_keep_their_type_and_weights_keep_their_signedness() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))
    plan = tersely.plan(model, {"quantization": {"preset": "w8a8", "for": "openvino"}})
    units = units_of(plan)

    recipe = chosen_recipe(plan.recipe, [(unit, Level("bits", 4)) for unit in units])
    chosen = tersely.plan(model, recipe)

    before = [(one.name, one.quantization.quant_dtype) for one in plan]
    after = [(one.name, one.quantization.quant_dtype) for one in chosen]
    assert after == [
        (name, dtype.replace("8", "4") if name.endswith("weight") else dtype)
        for name, dtype in before
    ]
    assert recipe["quantization"]["algorithm"] == plan.recipe.stages[0].algorithm
    assert "preset" not in recipe["quantization"]
