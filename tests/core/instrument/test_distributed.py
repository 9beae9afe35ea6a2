"""Invariant 5: DDP, and FSDP2 in both orders, in two real gloo processes (``worker.py``)."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("worker.py")
SECONDS = 90


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What each process reports of a scenario; runs all of them at the first question."""
    folder = tmp_path_factory.mktemp("gloo")
    logs = [folder / f"log-{rank}" for rank in (0, 1)]
    processes = [start(rank, folder, log) for rank, log in enumerate(logs)]
    wait_for(processes)

    def ask(scenario):
        found = []
        for rank, log in enumerate(logs):
            path = folder / f"results-{rank}.json"
            results = json.loads(path.read_text()) if path.exists() else {}
            found.append(results.get(scenario, f"not reached\n{log.read_text()}"))
        return found

    return ask


def start(rank, folder, log):
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-W", "error", str(WORKER), str(rank), str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def wait_for(processes):
    """Wait until all are done; when one fails, the others may wait for it, so they end too."""
    end = time.monotonic() + SECONDS
    while any(process.poll() is None for process in processes):
        if time.monotonic() > end or any(process.poll() for process in processes):
            for process in processes:
                process.kill()
        time.sleep(0.05)


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
        "fsdp_shows_shards_as_they_are",
        "fsdp_keeps_output_masks",
        "calibration_is_summed_up",
        "calibration_without_a_batch_fails_everywhere",
        "calibration_with_two_shapes_fails_everywhere",
        "fsdp_in_mixed_precision",
        "fsdp_goes_on_from_a_saved_session",
    ],
)
def test_two_processes(outcome, scenario):
    assert outcome(scenario) == ["ok", "ok"]


def test_every_scenario_of_the_worker_is_asked_for():
    asked = next(mark for mark in test_two_processes.pytestmark if mark.name == "parametrize")
    lines = WORKER.read_text(encoding="utf-8").splitlines()
    defined = [
        after.removeprefix("def ").partition("(")[0]
        for line, after in itertools.pairwise(lines)
        if line == "@scenario"
    ]
    assert asked.args[1] == defined
