"""What tersely-pruning says of itself."""

import subprocess
import sys

import pytest
from messages.documents import at_least

import tersely

PRUNERS = [
    "apoz",
    "fpgm",
    "l1_norm",
    "l2_norm",
    "level",
    "mean_activation",
    "movement",
    "random",
    "slim",
    "taylor",
]


def test_pruners_and_schedules_are_known():
    found = tersely.registry()
    records = [found.pruners.record(name) for name in PRUNERS]
    records += [found.schedules.record(name) for name in ("agp", "linear")]
    assert {record.distribution for record in records} == {"tersely-pruning"}


def test_the_face_imports_no_torch():
    code = "import sys, tersely_pruning; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_level_and_random_decide_on_elements_by_default_and_the_others_on_output_channels():
    infos = [tersely.registry().pruners.info(name) for name in PRUNERS]
    assert {info.name: info.default_granularity for info in infos} == {
        name: "element" if name in ("level", "random") else "output_channel" for name in PRUNERS
    }


def test_every_pruner_says_what_it_needs():
    infos = [tersely.registry().pruners.info(name) for name in PRUNERS]
    assert {info.name: info.needs for info in infos if info.needs != "nothing"} == {
        "apoz": "activations",
        "mean_activation": "activations",
        "movement": "training",
        "slim": "training",
        "taylor": "gradients",
    }


@pytest.mark.parametrize("name", ["movement", "slim", "taylor"])
def test_what_training_ranks_are_parameters(name):
    assert tersely.registry().pruners.info(name).target_kinds == ("parameter",)


@pytest.mark.parametrize("name", ["apoz", "mean_activation"])
def test_what_calibration_ranks_are_channels(name):
    assert "in_channel" not in tersely.registry().pruners.info(name).granularities


def test_movement_without_the_length_of_its_ramp_is_a_problem():
    stage = {"algorithm": "movement", "options": {}, "config_list": [{"op_types": ["Linear"]}]}
    with pytest.raises(tersely.ConfigError) as caught:
        tersely.load_recipe({"pruning": stage})
    assert str(caught.value.problems[0]) == (
        "pruning.options: missing key 'cooldown_begin_step' in the options of movement (write "
        f"cooldown_begin_step: {at_least(0)})"
    )


def test_an_unknown_option_is_a_problem_with_the_nearest_one():
    options = {"cooldown_begin_step": 3, "warmup_step": 1}
    stage = {"algorithm": "movement", "options": options, "config_list": [{"op_types": ["Linear"]}]}
    with pytest.raises(tersely.ConfigError, match="did you mean 'warmup_steps'"):
        tersely.load_recipe({"pruning": stage})


@pytest.mark.parametrize(
    "name", ["l1_norm", "l2_norm", "level", "movement", "random", "slim", "taylor"]
)
def test_whatever_sums_over_blocks_takes_every_granularity(name):
    assert tersely.registry().pruners.info(name).granularities is None


def test_fpgm_takes_no_granularity_of_single_elements():
    assert "n_m" not in tersely.registry().pruners.info("fpgm").granularities


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_cites_its_paper(name):
    assert tersely.registry().pruners.info(name).paper
