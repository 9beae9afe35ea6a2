"""What pruners see of a model that two real gloo processes train (``worker.py``)."""

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
        "dense_gradients_are_averaged_as_ddp_does",
        "dense_gradients_of_a_sharded_weight_are_whole",
        "curvature_is_summed_up",
        "scores_of_the_whole_model_are_summed_up",
    ],
)
def test_two_processes(outcome, scenario):
    assert outcome(scenario) == ["ok", "ok"]


def test_every_scenario_of_the_worker_is_asked_for(scenarios_of):
    asked = next(mark for mark in test_two_processes.pytestmark if mark.name == "parametrize")
    assert asked.args[1] == scenarios_of(WORKER)
