"""Two real gloo processes end with the same weights, masks and scales, whoever runs the loop."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.worker("worker.py")
def test_two_processes_of_accelerate(outcome):
    assert outcome == ["ok", "ok"]


@pytest.mark.worker("frameworks_worker.py")
def test_two_processes_of_the_other_frameworks(outcome):
    assert outcome == ["ok", "ok"]
