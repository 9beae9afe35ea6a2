"""Quantizers find the same scales in two real gloo processes (``worker.py``)."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def outcome(start_workers):
    return start_workers(WORKER)


@pytest.mark.parametrize(
    "scenario",
    [
        "ranges_are_those_of_all_data",
        "percentiles_are_the_same_everywhere",
        "histograms_are_the_same_everywhere",
        "biases_are_corrected_alike",
        "weights_are_solved_alike",
        "a_range_that_follows_training_is_that_of_both",
        "qat_trains_alike",
        "qat_trains_alike_when_wrapped_before",
        "scales_are_learned_from_all_data",
        "scales_that_the_user_s_optimizer_moves_apart_are_an_error_in_both",
        "scales_that_the_user_s_loop_averages_are_learned_from_all_data",
    ],
)
def test_two_processes(outcome, scenario):
    assert outcome(scenario) == ["ok", "ok"]


def test_every_scenario_of_the_worker_is_asked_for(scenarios_of):
    asked = next(mark for mark in test_two_processes.pytestmark if mark.name == "parametrize")
    assert asked.args[1] == scenarios_of(WORKER)
