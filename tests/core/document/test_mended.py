"""Mistakes whose message has to say what to write, since the rule alone does not."""

import json

import pytest
from messages.documents import IN_AN_ENTRY, LOSS_IN_ENTRIES

import tersely
from tersely.document.load import load_job


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

    assert hint == f"{LOSS_IN_ENTRIES} kl"


ENTRY = {"op_types": ["Linear"], "sparse_ratio": 0.5}
JOB = {"model": "parts:build", "recipe": {"pruning": {"config_list": [ENTRY]}}, "output": "run"}


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        (
            "end",
            1000,
            "write times, the number of updates, as in every: 10 and times: 100 for 1000 steps",
        ),
        ("frequency", 10, "write every: 10"),
        ("interval", 10, "write every: 10"),
    ],
)
def test_other_words_for_the_keys_of_a_schedule(key, value, hint):
    stage = {"algorithm": "level", "schedule": {"name": "agp", key: value}, "config_list": [ENTRY]}

    assert hint_of({"pruning": stage}) == hint


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("runtime", "onnxruntime", "write for: onnxruntime"),
        ("exclude", ["a"], "write exclude_op_names for names, or exclude_op_types for types"),
    ],
)
def test_other_words_for_the_keys_of_a_stage(key, value, hint):
    assert hint_of({"quantization": {"preset": "w8a8", key: value}}) == hint


@pytest.mark.parametrize(
    ("value", "scheme"), [("yes", "symmetric"), ("no", "affine"), (True, "symmetric")]
)
def test_yes_and_no_are_strings_in_yaml_and_mean_what_they_say(value, scheme):
    entry = {"op_types": ["Linear"], "sym": value}
    stage = {"algorithm": "ptq", "config_list": [entry]}

    assert hint_of({"quantization": stage}) == f"write quant_scheme: {scheme}"


def test_a_decimal_comma_becomes_a_point():
    stage = {"config_list": [{"op_names": ["head"], "lambda": "0,5"}]}

    assert hint_of({"distillation": stage}) == "write 0.5"


@pytest.mark.parametrize("written", ["2-4", "2/4", "2 of 4"])
def test_some_of_so_many_neighbours_are_written_with_a_colon(written):
    entry = {**ENTRY, "granularity": written}

    assert hint_of({"pruning": {"algorithm": "level", "config_list": [entry]}}) == "write '2:4'"


def test_a_learning_rate_by_its_long_name_is_the_only_problem_of_a_loop(tmp_path):
    loop = {"epochs": 1, "optimizer": "adam", "learning_rate": 0.001, "loss": "mse"}
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**JOB, "loop": loop, "data": {"train": "parts:train"}}))

    with pytest.raises(tersely.ConfigError) as caught:
        load_job(path)

    assert [one.hint for one in caught.value.problems if one.path.startswith("loop")] == [
        "write lr: 0.001"
    ]


def problems_of(document):
    with pytest.raises(tersely.ConfigError) as caught:
        tersely.load_recipe(document)
    return {problem.path: problem.hint for problem in caught.value.problems}


def test_the_type_of_a_schedule_is_its_name():
    schedule = {"type": "agp", "every": 10, "times": 2}
    stage = {"algorithm": "level", "schedule": schedule, "config_list": [ENTRY]}

    assert problems_of({"pruning": stage})["pruning.schedule.type"] == "write name: agp"


def test_a_weight_and_a_loss_of_distillation_are_told_by_their_keys():
    entry = {"op_names": ["head"], "weight": 0.5, "loss": "kl_div"}

    assert problems_of({"distillation": {"config_list": [entry]}}) == {
        "distillation.config_list[0].weight": "write lambda: 0.5",
        "distillation.config_list[0].loss": "write apply_method: kl",
    }


def test_a_sparsity_of_a_stage_is_one_of_its_entries():
    stage = {"algorithm": "level", "sparsity": 0.5, "config_list": [{"op_types": ["Linear"]}]}

    hint = problems_of({"pruning": stage})["pruning.sparsity"]

    assert hint == f"write sparse_ratio: 0.5, {IN_AN_ENTRY}"


@pytest.mark.parametrize(("word", "meant"), [("yes", "true"), ("Off", "false"), ("no", "false")])
def test_what_was_a_boolean_in_older_yaml_is_told_as_one(word, meant):
    stage = {"algorithm": "level", "config_list": [ENTRY]}

    assert problems_of({"pruning": stage, "strict": word}) == {"strict": f"write {meant}"}


def test_the_path_of_a_file_becomes_a_reference(tmp_path):
    document = {**JOB, "model": "./models/net.py:build"}
    document["recipe"] = {"pruning": {"algorithm": "level", "config_list": [ENTRY]}}
    (tmp_path / "job.json").write_text(json.dumps(document))

    with pytest.raises(tersely.ConfigError) as caught:
        load_job(tmp_path / "job.json")

    assert [problem.hint for problem in caught.value.problems] == ["write models.net:build"]


def test_a_learning_rate_of_a_job_is_one_of_its_loop(tmp_path):
    document = {**JOB, "learning_rate": 0.1}
    document["recipe"] = {"pruning": {"algorithm": "level", "config_list": [ENTRY]}}
    (tmp_path / "job.json").write_text(json.dumps(document))

    with pytest.raises(tersely.ConfigError) as caught:
        load_job(tmp_path / "job.json")

    assert [problem.hint for problem in caught.value.problems] == ["write lr: 0.1, under 'loop'"]
