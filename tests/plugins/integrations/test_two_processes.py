"""Two real gloo processes that Accelerate runs end with the same masks and scales (``worker.py``)."""

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
        "masks_and_scales_are_the_same",
        "gradients_accumulate",
        "what_one_process_saved_goes_on_in_both",
    ],
)
def test_two_processes(outcome, scenario):
    assert outcome(scenario) == ["ok", "ok"]


def test_every_scenario_of_the_worker_is_asked_for(scenarios_of):
    asked = next(mark for mark in test_two_processes.pytestmark if mark.name == "parametrize")
    assert asked.args[1] == scenarios_of(WORKER)
