"""Processes of `fresh.py` know nothing of each other."""

import contextlib
import importlib.util
import os
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")


def test_each_has_numbers_of_its_own(tmp_path, fresh):
    code = "import numpy, random, uuid; print(numpy.random.rand(), random.random(), uuid.uuid4())"

    one, other = (fresh.run("-c", code, cwd=tmp_path).stdout.split() for _ in range(2))

    assert len(one) == 3
    assert not set(one) & set(other)


def test_it_has_the_path_and_the_variables_that_it_is_given(tmp_path, fresh):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "only_here.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": "site"}
    code = "import only_here, os; print(os.environ.get('ONLY_HERE'), os.getcwd())"

    given = fresh.run("-c", code, cwd=tmp_path, env={**environment, "ONLY_HERE": "1"})
    later = fresh.run("-c", code, cwd=tmp_path, env=dict(os.environ))

    assert given.stdout.split() == ["1", os.path.realpath(tmp_path)], given.stderr
    assert later.returncode == 1
    assert "No module named 'only_here'" in later.stderr


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('why')", 1),
        ("raise KeyError", 1),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import atexit, os; atexit.register(os._exit, 5)", 5),
        ("import warnings; warnings.warn('seen')", 1),
    ],
)
def test_its_status_is_the_one_that_a_shell_sees(tmp_path, fresh, code, status):
    assert fresh.run("-W", "error", "-c", code, cwd=tmp_path).returncode == status


def is_free(path):
    """Tell whether nobody holds a file, or will have let it go soon."""
    fcntl = pytest.importorskip("fcntl")
    for _ in range(300):
        with path.open("a") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="without forks there is no server")
def test_one_that_hangs_is_ended_and_the_next_has_an_answer_of_its_own(tmp_path):
    spec = importlib.util.spec_from_file_location(
        "own_fresh", Path(__file__).parents[1] / "fresh.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Fresh(imports=())  # it is started twice here
    code = "import fcntl, time; file = open('held', 'w'); fcntl.flock(file, 2); time.sleep(900)"
    assert server.run("-c", "", cwd=tmp_path).returncode == 0  # it is there
    server.seconds = 1

    with pytest.raises(RuntimeError, match="was ended after 1 s"):
        server.run("-c", code, cwd=tmp_path)
    server.seconds = module.SECONDS

    assert is_free(tmp_path / "held")
    assert server.run("-c", "raise SystemExit(4)", cwd=tmp_path).returncode == 4
    server.close()
