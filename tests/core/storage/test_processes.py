"""Processes of this machine: which still work, and which only have the number of one that did."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tersely.storage.processes import is_running, start_of

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux")


def test_this_process_and_its_parent_are_running():
    assert is_running(os.getpid())
    assert is_running(os.getppid())


@pytest.mark.skipif(sys.platform == "win32", reason="cannot be asked there")
def test_a_process_that_has_ended_is_not_running():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert not is_running(process.pid)
    assert start_of(process.pid) == ""


@LINUX
def test_a_process_that_has_ended_and_is_not_waited_for_is_not_running():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert not is_running(process.pid)
    process.wait()


@LINUX
def test_processes_differ_in_their_starts():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert start_of(process.pid) not in ("", start_of(os.getpid()))
        assert start_of(process.pid) == start_of(process.pid)
        process.communicate(b"\n")
