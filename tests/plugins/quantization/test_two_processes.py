"""Quantizers find the same scales in two real gloo processes (``worker.py``)."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.worker("worker.py")
def test_two_processes(outcome):
    assert outcome == ["ok", "ok"]
