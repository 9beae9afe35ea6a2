"""Searches that processes share: no setting twice, no trial too many, nothing lost by a kill."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

SHARING = """
import os, signal, sys, time, traceback
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), sys.argv[1]]
import toys
from rich.console import Console
from tersely.searching.search import job as searching
from tersely.searching.search.search import Search

folder, has_kill = Path(sys.argv[1]), sys.argv[2] == "kill"
wanted = searching.Wanted(max_drop=40, trials=20, ratios=(0.25, 0.5, 0.75))
over, try_out = folder / "over", Search.try_out


def dying(*given):
    os.kill(os.getpid(), signal.SIGKILL)


def patient(*given):
    tried = try_out(*given)  # then trials are left for the process that is killed
    while has_kill and not over.exists():
        time.sleep(0.01)
    return tried


def search(name, act):
    Search.try_out = act
    with (folder / f"{name}.txt").open("w") as said:
        searching.search_job(
            folder / "job.json",
            wanted,
            output=folder / name,
            storage=f"sqlite:///{folder / 'shared.db'}",
            console=Console(file=said, width=200),
        )


def forked(number):
    pid = os.fork()
    if not pid:
        status = 1
        try:
            search(f"process-{number}", dying if has_kill and number == 2 else patient)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


torch.set_num_threads(1)  # threads do not survive a fork
warm = searching.Wanted(max_drop=40, trials=1, ratios=(0.5,))
with open(os.devnull, "w") as nowhere:  # everything that a search imports late
    searching.search_job(
        folder / "job.json", warm, output=folder / "warm", console=Console(file=nowhere)
    )
children = [forked(number) for number in range(3)]
for number in (2, 1, 0):
    _, status = os.waitpid(children[number], 0)
    over.touch()
    print(number, "killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes")
@pytest.mark.parametrize("ending", ["end", "kill"])
def test_three_processes_make_as_many_trials_as_asked_for_and_end_alike(
    searched_job: Any, tmp_path: Path, toy_rows_code: str, ending: str, fresh: Any
) -> None:
    (tmp_path / "toys.py").write_text(toy_rows_code)
    (tmp_path / "sharing.py").write_text(SHARING)

    script = str(tmp_path / "sharing.py")
    done = fresh.run(script, str(searched_job.folder), ending, cwd=tmp_path)

    killed = ending == "kill"
    last = "killed" if killed else "0"
    assert sorted(done.stdout.splitlines()) == ["0 0", "1 0", f"2 {last}"], done.stderr
    survivors = ["process-0", "process-1", *([] if killed else ["process-2"])]
    found = [
        json.loads((searched_job.folder / name / "search.json").read_text()) for name in survivors
    ]
    assert all(one == found[0] for one in found)
    settings = [tuple(one["setting"]) for one in found[0]["trials"]]
    assert len(settings) == len(set(settings)) == 20
