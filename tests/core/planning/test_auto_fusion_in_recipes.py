"""Folding that a recipe leaves to a run of the model."""

from typing import Any

import pytest
import torch
from torch import nn

import tersely
from tersely.document.recipe import Recipe
from tersely.errors import PlanError
from tersely.planning.plan import Plan

CONVS = {"op_types": ["Conv2d"], "target_names": ["weight"]}
IMAGE = torch.ones(1, 3, 6, 6)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    ).eval()


def planned(stage: Any, model: nn.Module | None = None) -> Plan:
    recipe = {"quantization": {"algorithm": "whole", **stage}}
    return tersely.plan(model or network(), recipe, example_inputs=IMAGE)


def folded(recipe: Recipe) -> list[tuple[str, ...]]:
    return [names for stage in recipe.stages for names in stage.folded]


def test_a_stage_folds_what_the_run_shows() -> None:
    plan = planned({"fuse_names": "auto", "config_list": [CONVS]})

    assert folded(plan.recipe) == [("0", "1", "2"), ("3", "4")]


@pytest.mark.filterwarnings("ignore::tersely.planning.resolve.PlanWarning")  # configured twice
def test_an_entry_folds_into_the_modules_that_it_decides_on_alone() -> None:
    later = {"op_names": ["3"], "target_names": ["weight"]}
    plan = planned({"config_list": [{**CONVS, "fuse_names": "auto"}, later]})

    assert folded(plan.recipe) == [("0", "1", "2")]


def test_a_stage_leaves_to_its_entries_what_they_fold() -> None:
    first = {"op_names": ["0"], "target_names": ["weight"], "fuse_names": "auto"}
    written = {"op_names": ["3"], "target_names": ["weight"], "fuse_names": [["3", "4"]]}
    plan = planned({"fuse_names": "auto", "config_list": [first, written]})

    assert plan.recipe.stages[0].fuse_names == ()
    assert folded(plan.recipe) == [("0", "1", "2"), ("3", "4")]


def test_the_plan_says_what_was_found() -> None:
    [hint] = planned({"fuse_names": "auto", "config_list": [CONVS]}).hints

    assert hint == "quantization.fuse_names: 'auto' folds 0 + 1 + 2, 3 + 4"


def test_the_plan_says_that_nothing_was_found() -> None:
    plan = planned(
        {"fuse_names": "auto", "config_list": [CONVS]}, nn.Sequential(nn.Conv2d(3, 3, 1))
    )

    assert plan.hints == (
        "quantization.fuse_names: 'auto' found nothing that folds into a quantized module",
    )


def test_the_plan_keeps_what_was_found_as_data() -> None:
    plan = planned({"fuse_names": "auto", "config_list": [CONVS]})
    again = Plan.from_dict(plan.to_dict())

    assert folded(again.recipe) == folded(plan.recipe)


def test_the_recipe_that_was_given_still_says_auto() -> None:
    recipe = tersely.load_recipe(
        {"quantization": {"algorithm": "whole", "fuse_names": "auto", "config_list": [CONVS]}}
    )
    tersely.plan(network(), recipe, example_inputs=IMAGE)

    assert recipe.stages[0].fuse_names == "auto"
    assert recipe.document["quantization"]["fuse_names"] == "auto"


def test_a_model_that_does_not_run_is_an_error_with_the_place() -> None:
    recipe = {"quantization": {"algorithm": "whole", "fuse_names": "auto", "config_list": [CONVS]}}

    with pytest.raises(PlanError, match=r"quantization\.fuse_names: the model does not run"):
        tersely.plan(network(), recipe, example_inputs=torch.ones(1, 5, 2, 2))
