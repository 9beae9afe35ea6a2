"""Invariant 5: DDP, and FSDP2 in both orders, in two real gloo processes (``worker.py``)."""

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
        "ddp_after_attach",
        "ddp_before_attach",
        "attach_to_the_wrapper",
        "fsdp_after_attach",
        "fsdp_before_attach",
        "fsdp_finalize",
        "fsdp_detach",
        "held_weights_are_masked_whoever_shares_them",
        "fsdp_shows_shards_as_they_are",
        "fsdp_keeps_output_masks",
        "calibration_is_summed_up",
        "calibration_without_a_batch_fails_everywhere",
        "calibration_with_two_shapes_fails_everywhere",
        "fsdp_in_mixed_precision",
        "fsdp_goes_on_from_a_saved_session",
        "gradients_are_averaged",
    ],
)
def test_two_processes(outcome, scenario):
    assert outcome(scenario) == ["ok", "ok"]


def test_every_scenario_of_the_worker_is_asked_for(scenarios_of):
    asked = next(mark for mark in test_two_processes.pytestmark if mark.name == "parametrize")
    assert asked.args[1] == scenarios_of(WORKER)
