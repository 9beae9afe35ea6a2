"""What losses remember is the same in two real gloo processes (``states_worker.py``)."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_buffers_of_two_processes_are_brought_together(start_workers):
    outcome = start_workers(Path(__file__).with_name("states_worker.py"))

    assert outcome("buffers_are_brought_together") == ["ok", "ok"]
