"""A pipeline whose process is killed ends with the weights of one that was not, bit for bit."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("pipeline.py")
STEPS = 24


def start(folder):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(SCRIPT), str(folder), str(STEPS)],
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_after(folder, step):
    """Run the script and kill it as soon as it has made a step; return the steps that it made."""
    made = []
    with start(folder) as process:
        for line in process.stdout:
            made.append(int(line))
            if made[-1] >= step:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return made


def finish(folder):
    with start(folder) as process:
        made = [int(line) for line in process.stdout]
    assert process.returncode == 0
    return made, torch.load(folder / "finished.pt", weights_only=True)


@pytest.mark.slow
def test_killed_in_the_middle_of_each_period(tmp_path):
    whole, expected = finish(tmp_path / "whole")
    assert whole == list(range(1, STEPS + 1))

    folder = tmp_path / "killed"
    first = kill_after(folder, 7)
    second = kill_after(folder, 17)
    last, found = finish(folder)
    # Each goes on after a step that was saved: not at the beginning, and none is left out.
    assert first[0] == 1
    assert second[0] % 3 == 1
    assert 1 < second[0] <= first[-1] + 1
    assert last[0] % 3 == 1
    assert 1 < last[0] <= second[-1] + 1
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
