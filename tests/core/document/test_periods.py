"""Periods: how stages get their time, and what is said of those that cannot follow one another."""

import pytest
from messages.documents import found, misplaced_key

import tersely

LIST = [{"op_types": ["Linear"]}]
DISTIL = {"distillation": {"config_list": LIST}}
PRUNE = {"algorithm": "level", "config_list": LIST}


def quantize(algorithm):
    return {"quantization": {"algorithm": algorithm, "config_list": LIST}}


def schedule(**counts):
    return {"pruning": {**PRUNE, "schedule": {"name": "agp", **counts}}}


@pytest.fixture
def problems():
    """The problems of a recipe with these periods, as text."""

    def problems(*periods, **beside):
        with pytest.raises(tersely.ConfigError) as caught:
            tersely.load_recipe({"stages": list(periods), **beside})
        return [str(problem) for problem in caught.value.problems]

    return problems


def times(recipe):
    return [(stage.path, stage.begin, stage.end) for stage in tersely.load_recipe(recipe).stages]


def test_a_stage_has_the_time_of_its_period():
    recipe = {
        **DISTIL,
        "stages": [
            {"pruning": PRUNE, "until": 100},
            {**quantize("qat"), "pruning": [PRUNE, PRUNE], "until": 250.0},
            {"distillation": [DISTIL["distillation"]]},
        ],
    }
    assert times(recipe) == [
        ("stages[0].pruning", 0, 100),
        ("stages[1].pruning[0]", 100, 250),
        ("stages[1].pruning[1]", 100, 250),
        ("stages[1].quantization", 100, 250),
        ("distillation", 0, None),
        ("stages[2].distillation[0]", 250, None),
    ]


def test_without_periods_everything_lasts():
    assert times({"pruning": PRUNE}) == [("pruning", 0, None)]


def test_a_schedule_counts_from_the_beginning_of_training():
    recipe = tersely.load_recipe(
        {"stages": [{**DISTIL, "until": 30}, schedule(begin=5, every=2, times=10)]}
    )
    assert (recipe.stages[0].schedule.begin, recipe.stages[0].schedule.end) == (35, 55)


def test_an_entry_in_a_period_knows_its_place():
    recipe = tersely.load_recipe({"stages": [{"pruning": PRUNE}]})
    assert recipe.stages[0].entries[0].path == "stages[0].pruning.config_list[0]"


def test_a_period_without_an_end_before_another(problems):
    assert problems(DISTIL, quantize("qat")) == [
        "stages[0]: 'until' is missing, and another period follows (write until: the optimizer "
        "step after which the next one begins)"
    ]


def test_a_period_that_ends_before_it_begins(problems):
    first = {**DISTIL, "until": 10}
    assert problems(first, {**quantize("qat"), "until": 7}) == [
        "stages[1].until: "
        + found(
            "7",
            "a step after 10, with which this period begins",
            "steps are counted from the beginning of training, not of the period",
        )
    ]


def test_a_schedule_that_takes_longer_than_its_period(problems):
    first = {**DISTIL, "until": 10}
    assert problems(first, {**schedule(every=10, times=5), "until": 50}) == [
        "stages[1].pruning.schedule: the schedule takes 50 steps, and its period has 40, from 10 "
        "to 50 (write until: 60 or later, or update more often)"
    ]


def test_pruning_after_scales_that_are_chosen_once(problems):
    first = {**quantize("ptq"), "until": 10}
    assert problems(first, {"pruning": PRUNE}) == [
        "stages[1].pruning.algorithm: pruning begins after stages[0].quantization (ptq) has chosen "
        "its scales, which would be those of other weights (prune first, or quantize by an "
        "algorithm whose scales follow training, such as qat)"
    ]


@pytest.mark.parametrize("until", ["soon", 0, 1.5, True, []])
def test_an_end_that_is_no_step(problems, until):
    found = problems({**DISTIL, "until": until}, DISTIL)
    assert [text.partition(":")[0] for text in found] == ["stages[0].until"]


@pytest.mark.parametrize("periods", [3, [3], [[]], {"pruning": PRUNE}])
def test_periods_of_the_wrong_shape(periods):
    with pytest.raises(tersely.ConfigError) as caught:
        tersely.load_recipe({"stages": periods})
    assert caught.value.problems[0].path.startswith("stages")


def test_an_end_at_the_top_of_the_recipe(problems):
    assert problems(DISTIL, until=5) == [
        "until: "
        + misplaced_key("until", "a period", "a recipe", "write it in an item of 'stages'")
    ]


def test_an_unknown_algorithm_in_a_period_is_one_problem(problems):
    found = problems({**quantize("pqt"), "until": 10}, {"pruning": PRUNE})
    assert len(found) == 1
    assert found[0].startswith("stages[0].quantization.algorithm: ")
    assert "expected a quantizer: ptq or qat" in found[0]


def test_a_recipe_of_periods_is_told_from_a_job(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("stages: [{distillation: {config_list: [{op_types: [Linear]}]}}]\n")
    assert tersely.load_recipe(file).stages[0].method == "distillation"
