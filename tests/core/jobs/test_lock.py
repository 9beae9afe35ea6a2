"""One run of an output at a time, and what becomes of the lock of a run that was killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tersely.cli.main import main
from tersely.errors import SessionFileError
from tersely.jobs.output.lock import lock_file, only_run

HOLD = """
import sys
from pathlib import Path
from tersely.jobs.output.lock import only_run

with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the output until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_with_the_name_of_the_first(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    output = tmp_path / "out"

    with pytest.raises(SessionFileError) as caught, only_run(output):
        pass

    start = json.loads(lock_file(output).read_text())["start"]
    assert str(caught.value) == (
        f"{output} is being written by process {other.pid} on {socket.gethostname()}, since "
        f"{start}; wait for it to end, or name another output; if it ended without releasing its "
        f"lock, remove {tmp_path / 'out.lock'}"
    )


def test_the_lock_of_a_killed_run_is_taken_over(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "out.lock").exists()

    with only_run(tmp_path / "out"):
        owner = json.loads((tmp_path / "out.lock").read_text())

    assert owner["pid"] == os.getpid()


def test_a_lock_ends_with_its_run(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.communicate("")

    assert not (tmp_path / "out.lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "many"}', "[" * 5000])
def test_a_lock_that_was_cut_off_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "out.lock").write_text(content)

    with only_run(tmp_path / "out"):
        pass

    assert not (tmp_path / "out.lock").exists()


def test_the_lock_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "out.lock"
    place.write_text(json.dumps({"pid": 1, "host": "elsewhere", "start": "yesterday"}))

    with (
        pytest.raises(SessionFileError, match="process 1 on elsewhere, since yesterday"),
        only_run(tmp_path / "out"),
    ):
        pass

    assert place.exists()


def test_two_threads_of_a_process_cannot_both_run(tmp_path: Path) -> None:
    with (
        only_run(tmp_path / "out"),
        pytest.raises(SessionFileError, match=f"by process {os.getpid()} on "),
        only_run(tmp_path / "out"),
    ):
        pass


def test_two_outputs_run_side_by_side(tmp_path: Path) -> None:
    with only_run(tmp_path / "out"), only_run(tmp_path / "other"):
        assert lock_file(tmp_path / "out").exists()


def test_where_files_cannot_be_locked_the_living_owner_counts(
    tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tersely.jobs.output.lock.take_lock", lambda descriptor: None)

    with pytest.raises(SessionFileError, match="is being written by"), only_run(tmp_path / "out"):
        pass

    other.kill()
    other.wait()
    with only_run(tmp_path / "out"):
        pass


def test_a_process_that_the_run_forks_does_not_keep_the_lock(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    code = HOLD.replace('print("held"', 'import os; os.fork() or os.abort(); print("held"')
    forking = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "forked")],
        input="", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert forking.stdout == "held\n"

    with only_run(tmp_path / "forked"):
        pass


def test_a_job_runs_once_at_a_time(workshop: Any, run: Callable[..., str]) -> None:
    workshop.code(
        "toy_twice.py",
        """
        import os, sys, subprocess
        from toy_parts import finetune

        SECOND = (
            "from pathlib import Path; from tersely.jobs.output.lock import only_run; "
            "only_run(Path(sys.argv[1])).__enter__()"
        )

        def train(model, session):
            command = [sys.executable, "-c", "import sys; " + SECOND, OUTPUT]
            second = subprocess.run(command, capture_output=True, text=True)
            with open(HERE + "/second.txt", "w") as stream:
                stream.write(f"{second.returncode}" + second.stderr)
            finetune(model, session)

        HERE = os.path.dirname(__file__)
        OUTPUT = OUTPUT_OF_THE_JOB
        """.replace("OUTPUT_OF_THE_JOB", repr(str(workshop.output))),
    )
    workshop.write(train="toy_twice:train")

    run()

    second = (workshop.folder / "second.txt").read_text()
    assert second.startswith("1Traceback")
    assert (
        f"SessionFileError: {workshop.output} is being written by process {os.getpid()}" in second
    )
    assert (workshop.output / "model.safetensors").exists()
    assert (workshop.output / "session" / "session.json").exists()
    assert not lock_file(workshop.output).exists()


@pytest.mark.parametrize("command", [("shrink",), ("export", "--format", "toy_names")])
def test_what_writes_into_a_run_leaves_it_to_the_run_that_is_under_way(
    workshop: Any,
    run: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
) -> None:
    run()

    with only_run(workshop.output), pytest.raises(SystemExit) as caught:
        main([command[0], str(workshop.output), *command[1:]])

    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert f"{workshop.output} is being written by process {os.getpid()}" in " ".join(said.split())
    assert {path.name for path in workshop.output.iterdir()}.isdisjoint({"shrunk", "exports"})
