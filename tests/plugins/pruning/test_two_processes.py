"""Pruners that observe and learn decide alike in two real gloo processes (``worker.py``)."""

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
        "taylor_with_ddp",
        "slim_with_ddp",
        "movement_with_ddp",
        "taylor_with_ddp_and_accumulation",
        "slim_with_ddp_and_accumulation",
        "movement_with_ddp_and_accumulation",
        "apoz_sees_all_data",
        "mean_activation_sees_all_data",
        "wanda_sees_all_data",
        "sparsegpt_sees_all_data",
        "an_expert_that_one_process_calls_counts_with_what_it_saw",
        "an_expert_that_no_process_calls_is_an_error_in_both",
        "a_batch_that_fails_in_one_process_is_an_error_in_both",
        "a_batch_that_fails_in_one_process_block_by_block_is_an_error_in_both",
        "factors_of_an_expert_learn_in_both_processes_alike",
        "scores_that_the_users_optimizer_moves_apart_are_an_error_in_both",
        "scores_that_the_users_loop_averages_decide_alike",
        "taylor_with_fsdp",
        "taylor_attached_before_fsdp_is_an_error_in_both",
        "calibration_with_fsdp",
        "going_block_by_block_with_fsdp_is_an_error_in_both",
        "slim_with_fsdp",
        "movement_with_fsdp",
        "a_session_that_one_process_saved_goes_on_in_both",
    ],
)
def test_two_processes(outcome, scenario):
    assert outcome(scenario) == ["ok", "ok"]


def test_every_scenario_of_the_worker_is_asked_for(scenarios_of):
    asked = next(mark for mark in test_two_processes.pytestmark if mark.name == "parametrize")
    assert asked.args[1] == scenarios_of(WORKER)
