"""Invariant 5: DDP, and FSDP2 in both orders, in two real gloo processes (``worker.py``)."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.worker("worker.py")
def test_two_processes(outcome):
    assert outcome == ["ok", "ok"]
