"""What is decided together, and the recipe that choices come to."""

from typing import Any

from torch import nn

import tersely
from tersely.searching.chosen_recipes import chosen_at_once, chosen_recipe
from tersely.searching.units import Level, units_of


def follow(name: str) -> dict[str, Any]:
    return {"align": {"module_name": name, "target_name": "weight", "dims": [0]}}


def blocks() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4))


RECIPE: dict[str, Any] = {
    "pruning": {
        "algorithm": "toy_rows",
        "config_list": [
            {"op_names": ["0"], "sparse_ratio": 0.5},
            {"op_names": ["1"], "target_settings": {"weight": follow("0"), "bias": follow("0")}},
            {"op_names": ["2", "3"], "dependency_group_id": "pair", "sparse_ratio": 0.5},
        ],
    }
}


def test_what_follows_and_what_shares_a_decision_is_one(toy_pruners: None) -> None:
    units = units_of(tersely.plan(blocks(), RECIPE))

    assert [unit.modules for unit in units] == [("0", "1"), ("2", "3")]
    assert [unit.label for unit in units] == ["0", "2 +1"]
    assert [level.value for level in units[0].levels] == [0.25, 0.5, 0.75]


def test_a_choice_takes_the_place_of_the_ratio_and_brings_its_followers(toy_pruners: None) -> None:
    model = blocks()
    plan = tersely.plan(model, RECIPE)
    first, _ = units_of(plan)

    chosen = tersely.plan(model, chosen_recipe(plan.recipe, [(first, Level("sparse_ratio", 0.25))]))

    assert [target.name for target in chosen] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert chosen.targets[0].pruning.sparse_ratio == 0.25
    assert [target.align.source_name("1") for target in chosen.targets[2:]] == ["0.weight"] * 2


def test_modules_that_are_treated_alike_share_an_entry(toy_pruners: None) -> None:
    plan = tersely.plan(blocks(), RECIPE)
    _, pair = units_of(plan)

    recipe = chosen_recipe(plan.recipe, [(pair, Level("sparse_ratio", 0.75))])

    (entry,) = recipe["pruning"]["config_list"]
    assert entry["op_names"] == ["2", "3"]
    assert entry["target_settings"]["weight"]["sparse_ratio"] == 0.75
    assert entry["target_settings"]["weight"]["dependency_group_id"] == "pair"


def test_a_share_of_a_budget_becomes_a_ratio_of_its_own(toy_pruners: None) -> None:
    recipe = {
        "pruning": {
            "algorithm": "toy",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5, "global_group_id": 1}],
        }
    }
    plan = tersely.plan(blocks(), recipe)
    units = units_of(plan)

    chosen = tersely.plan(
        blocks(), chosen_recipe(plan.recipe, [(units[1], Level("sparse_ratio", 0.25))])
    )

    assert len(units) == 3
    assert chosen.targets[0].pruning.global_group_id is None
    assert chosen.targets[0].pruning.sparse_ratio == 0.25


def test_a_recipe_keeps_its_training_and_a_trial_has_none(
    toy_pruners: None, toy_losses: None
) -> None:
    stage = {
        "algorithm": "toy",
        "schedule": {"name": "toy_line", "times": 4},
        "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}],
    }
    later = {**stage, "config_list": [{"op_names": ["2"], "sparse_ratio": 0.5}]}
    recipe = {
        "stages": [{"until": 10, "pruning": stage}, {"pruning": later}],
        "distillation": {"config_list": [{"op_names": ["3"], "apply_method": "toy_square"}]},
        "strict": True,
    }
    plan = tersely.plan(blocks(), recipe)
    units = units_of(plan)
    choices = [(unit, unit.levels[0]) for unit in units]

    kept, trial = chosen_recipe(plan.recipe, choices), chosen_at_once(plan.recipe, choices)

    assert [period["pruning"]["schedule"]["times"] for period in kept["stages"]] == [4, 4]
    assert kept["stages"][0]["until"] == 10
    assert kept["distillation"] == recipe["distillation"]
    assert kept["strict"] is True
    assert list(trial) == ["pruning"]
    assert [list(one) for one in trial["pruning"]] == [["algorithm", "config_list"]] * 2


def test_a_recipe_that_is_to_shrink_says_so_where_it_does_not_yet(toy_pruners: None) -> None:
    plan = tersely.plan(blocks(), RECIPE)
    choices = [(unit, unit.levels[0]) for unit in units_of(plan)]

    recipe = chosen_recipe(plan.recipe, choices, shrinking={0})

    assert recipe["pruning"]["shrink"] is True
    rounded = {"pruning": {**RECIPE["pruning"], "shrink": {"round_to": 2}}}
    plan = tersely.plan(blocks(), rounded)
    recipe = chosen_recipe(plan.recipe, choices, shrinking={0})
    assert recipe["pruning"]["shrink"] == {"round_to": 2}


def test_a_stage_of_which_nothing_is_chosen_is_left_out(toy_pruners: None) -> None:
    stage = {"algorithm": "toy", "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}]}
    other = {"algorithm": "toy", "config_list": [{"op_names": ["2"], "sparse_ratio": 0.5}]}
    plan = tersely.plan(blocks(), {"pruning": [stage, other]})
    units = units_of(plan)

    recipe = chosen_recipe(plan.recipe, [(units[1], Level("sparse_ratio", 0.25))])

    assert [one["config_list"][0]["op_names"] for one in recipe["pruning"]] == [["2"]]
