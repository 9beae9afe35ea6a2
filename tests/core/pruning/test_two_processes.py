"""What pruners see of a model that two real gloo processes train (``worker.py``)."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.worker("worker.py")
def test_two_processes(outcome):
    assert outcome == ["ok", "ok"]
