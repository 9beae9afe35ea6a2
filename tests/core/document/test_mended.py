"""Mistakes whose message has to say what to write, since the rule alone does not."""

import pytest

import tersely


def hint_of(stage, **recipe):
    with pytest.raises(tersely.ConfigError) as caught:
        tersely.load_recipe({**recipe, **stage})
    (problem,) = caught.value.problems
    return problem.hint


def test_a_schedule_that_is_only_a_name_becomes_a_mapping():
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
    stage = {"algorithm": "level", "schedule": "agp", "config_list": config}

    assert hint_of({"pruning": stage}) == "write a mapping: {name: agp}"


def test_an_algorithm_of_distillation_is_a_loss_of_its_entries():
    stage = {"algorithm": "kl", "config_list": [{"op_names": ["head"]}]}

    hint = hint_of({"distillation": stage})

    assert hint == "a loss is written in each entry: apply_method: kl"
