"""Two real gloo processes end with the same weights, masks and scales, whoever runs the loop."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ACCELERATE = Path(__file__).with_name("worker.py")
FRAMEWORKS = Path(__file__).with_name("frameworks_worker.py")


@pytest.fixture(scope="module")
def accelerate(start_workers):
    return start_workers(ACCELERATE)


@pytest.fixture(scope="module")
def frameworks(start_workers):
    return start_workers(FRAMEWORKS)


@pytest.mark.parametrize(
    "scenario",
    [
        "masks_and_scales_are_the_same",
        "gradients_accumulate",
        "what_one_process_saved_goes_on_in_both",
    ],
)
def test_two_processes_of_accelerate(accelerate, scenario):
    assert accelerate(scenario) == ["ok", "ok"]


@pytest.mark.parametrize("scenario", ["lightning", "transformers"])
def test_two_processes_of_the_other_frameworks(frameworks, scenario):
    assert frameworks(scenario) == ["ok", "ok"]


@pytest.mark.parametrize(
    ("test", "worker"),
    [
        (test_two_processes_of_accelerate, ACCELERATE),
        (test_two_processes_of_the_other_frameworks, FRAMEWORKS),
    ],
)
def test_every_scenario_of_a_worker_is_asked_for(scenarios_of, test, worker):
    asked = next(mark for mark in test.pytestmark if mark.name == "parametrize")
    assert asked.args[1] == scenarios_of(worker)
