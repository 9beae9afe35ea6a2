"""``tersely search``: the cheapest recipe that is good enough, the same after every interruption."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from messages.plugins import LIBRARY_NOT_INSTALLED
from rich.console import Console

import tersely
from tersely.cli.main import cli
from tersely.errors import ConfigError, SessionFileError

pytest.importorskip("optuna")


@pytest.fixture
def job(searched_job: Any) -> Any:
    return searched_job


@pytest.fixture
def search(job: Any) -> Callable[..., Any]:
    from tersely.searching.search.job import Wanted, search_job

    def search(output: str = "found", *, storage: str | None = None, **wanted: Any) -> Any:
        stream = io.StringIO()
        search.said = stream  # type: ignore[attr-defined]  # for tests of what is said
        return search_job(
            job.file,
            Wanted(**{"max_drop": 40, "trials": 9, "ratios": (0.25, 0.5, 0.75), **wanted}),
            output=job.folder / output,
            storage=storage,
            console=Console(file=stream, width=200),
        )

    return search


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return {}


@pytest.fixture
def whole(kept: dict[str, Any], job: Any, search: Any) -> Any:
    """One search that was not disturbed, which several tests read: its result and its files."""
    if not kept:
        kept["found"] = search("whole", trials=12)
        for name in ("search.json", "recipe.yaml"):
            kept[name] = (job.folder / "whole" / name).read_text()
    return SimpleNamespace(**kept)


def test_the_best_recipe_is_written_with_a_job_that_runs_it(job: Any) -> None:
    arguments = ["search", str(job.file), "--max-drop", "40", "--trials", "8"]

    result = CliRunner().invoke(cli, [*arguments, "--ratios", "0.25,0.5"], catch_exceptions=False)

    assert result.exit_code == 0, result.output
    folder = job.folder / "runs" / "first-search"
    found = json.loads((folder / "search.json").read_text())
    good = [one for one in found["trials"] if one["cost"] is not None]
    best = min(good, key=lambda one: one["cost"])
    assert best["drop"] <= 40
    assert len(found["trials"]) == 8
    assert "8 trials, macs as a share of the dense model's" in result.output
    plan = tersely.plan(_built(job), folder / "recipe.yaml")
    chosen = {one.module: one.pruning.sparse_ratio for one in plan if one.align is None}
    ratios = [None, 0.25, 0.5]
    names = [name.removeprefix("pruning of ") for name in found["units"]]
    expected = zip(names, best["setting"], strict=True)
    assert chosen == {name: ratios[place] for name, place in expected if place}

    from tersely.jobs.runner import run_job

    report = run_job(job.folder / "job-found.yaml", console=Console(file=io.StringIO()))

    assert report.metrics["after.likeness"] == pytest.approx(best["value"], abs=1e-6)
    before, after = report.shrinks[-1].macs
    assert after / before == best["cost"]


def _built(job: Any) -> Any:
    from tersely.document.load import load_job
    from tersely.jobs.finished import build_model

    return build_model(load_job(job.file))


def test_the_same_seed_tries_the_same(whole: Any, search: Any) -> None:
    other = search("other", trials=12)

    assert whole.found.trials == other.trials
    assert whole.found.recipe == other.recipe


def test_no_setting_is_tried_twice(whole: Any) -> None:
    settings = [one.setting for one in whole.found.trials]

    assert len(set(settings)) == len(settings)


def test_uniform_settings_come_first_and_stop_where_they_are_too_much(search: Any) -> None:
    trials = search(max_drop=25).trials

    uniform = [one for one in trials if one.kind == "uniform"]
    assert [one.setting for one in uniform] == [
        (place,) * 3 for place in range(1, len(uniform) + 1)
    ]
    assert all(one.drop <= 25 for one in uniform[:-1])
    assert trials[: len(uniform)] == tuple(uniform)


def test_what_is_found_is_no_dearer_than_the_best_uniform_setting(whole: Any) -> None:
    found = whole.found

    assert found.best_uniform is not None
    assert found.best.cost <= found.best_uniform.cost


def test_interrupted_it_keeps_the_best_and_goes_on_as_if_it_had_not_been(
    job: Any, whole: Any, search: Any
) -> None:
    # The dense model, nine settings of one layer alone, and six trials.
    (job.folder / "stop").write_text("17")

    with pytest.raises(KeyboardInterrupt):
        search("broken", trials=12)

    said = search.said.getvalue()
    assert "6 trials, macs as a share of the dense model's" in said
    assert "the best so far is in" in said
    assert "interrupted; the same command continues here" in said
    kept = json.loads((job.folder / "broken" / "search.json").read_text())
    assert len(kept["trials"]) == 6
    assert (job.folder / "broken" / "recipe.yaml").exists()
    again = search("broken", trials=12)
    assert again.trials == whole.found.trials
    assert again.recipe == whole.found.recipe


def test_interrupted_before_the_first_trial_it_says_how_it_goes_on(job: Any, search: Any) -> None:
    (job.folder / "stop").write_text("4")

    with pytest.raises(KeyboardInterrupt):
        search("early")

    said = search.said.getvalue()
    assert "interrupted; the same command continues here" in said
    assert "the best so far" not in said


def test_more_trials_continue_a_finished_search(search: Any) -> None:
    few = search(trials=4)
    search(trials=4)
    assert "[4/4] search\n  4 trials\n" in search.said.getvalue()

    more = search(trials=7)
    assert more.trials[:4] == few.trials
    assert len(more.trials) == 7


def test_another_question_in_the_same_folder_is_refused(search: Any) -> None:
    search(trials=3)

    with pytest.raises(SessionFileError, match="a search for something else: max-drop changed"):
        search(trials=3, max_drop=1)


def test_processes_that_share_a_storage_share_its_trials(job: Any, search: Any) -> None:
    storage = f"sqlite:///{job.folder / 'shared.db'}"
    one = search("one", storage=storage, trials=3)
    other = search("other", storage=storage, trials=6)

    assert other.trials[:3] == one.trials
    assert len(other.trials) == 6
    assert not (job.folder / "one" / "study.db").exists()


def test_a_storage_that_cannot_be_opened_is_an_error_without_its_password(search: Any) -> None:
    with pytest.raises(SessionFileError, match="give a URL that Optuna takes") as raised:
        search(storage="nosuch://user:secret@host/searches")

    assert "nosuch://user:***@host/searches cannot be opened" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.fixture
def claim(job: Any) -> Callable[..., Any]:
    """Claims a setting in a storage, as another process does."""
    import optuna

    from tersely.searching.trials import claims

    def claim(storage: str, setting: tuple[int, ...], **process: Any) -> Any:
        study = optuna.load_study(study_name="tersely-search", storage=storage)
        tried = study.get_trials()[0]
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING,
                params=dict(zip(tried.params, setting, strict=True)),
                distributions=tried.distributions,
                user_attrs={"process": {**claims._ourselves(), **process}},
            )
        )
        return study

    return claim


def test_what_another_machine_is_trying_is_left_to_it(job: Any, search: Any, claim: Any) -> None:
    storage = f"sqlite:///{job.folder / 'shared.db'}"
    search("one", storage=storage, trials=1)
    claim(storage, (2, 2, 2), host="elsewhere", pid=12)  # uniform, and next

    found = search("two", storage=storage, trials=3)

    assert [one.setting for one in found.trials] == [(1, 1, 1), (3, 3, 3)]
    assert "those of process 12 on elsewhere, which cannot be seen" in search.said.getvalue()


def test_what_another_process_is_trying_is_waited_for(
    job: Any, search: Any, claim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    storage = f"sqlite:///{job.folder / 'shared.db'}"
    search("one", storage=storage, trials=1)
    # The test's own parent is alive.
    study = claim(storage, (2, 2, 2), pid=os.getppid(), start="")
    pauses = iter(range(3))

    def pause(seconds: float) -> None:
        if next(pauses) == 2:
            study.tell(len(study.get_trials()) - 1, state=optuna.trial.TrialState.FAIL)

    monkeypatch.setattr("tersely.searching.search.search.time", SimpleNamespace(sleep=pause))
    found = search("two", storage=storage, trials=2)

    assert next(pauses, None) is None
    assert [one.setting for one in found.trials] == [(1, 1, 1), (2, 2, 2)]
    said = search.said.getvalue()
    assert said.count(f"waiting for the last trials of process {os.getppid()} on ") == 1


def test_where_nothing_is_good_enough_the_command_says_so(job: Any) -> None:
    arguments = ["--max-drop", "0", "--trials", "3", "--quiet", "--ratios", "0.75"]

    result = CliRunner().invoke(cli, ["search", str(job.file), *arguments])

    assert result.exit_code == 1
    assert "none of 3 trials loses at most 0 % of likeness; allow more" in result.output


def test_bytes_count_what_is_left_after_shrinking(search: Any) -> None:
    found = search(objective="bytes", trials=1)

    # 56 + 72 + 72 + 18 parameters; without a quarter of each hidden layer 42 + 42 + 42 + 14.
    assert found.trials[0].cost == pytest.approx(140 / 218)


def test_an_objective_that_nothing_changes_is_refused(job: Any, search: Any) -> None:
    stage = {"algorithm": "toy", "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}]}
    job.write(
        model="searched:build",
        data={"calibration": "searched:batches", "evaluate": "searched:evaluate"},
        train=None,
        recipe={"pruning": stage},
    )

    with pytest.raises(ConfigError, match="nothing that the recipe does changes the number of mac"):
        search()
    with pytest.raises(ConfigError, match="save no time here"):
        search(objective="latency")


def test_a_limit_that_is_no_number_is_refused(search: Any) -> None:
    with pytest.raises(ConfigError, match="--max-drop: found nan, expected a percentage"):
        search(max_drop=float("nan"))


def test_a_level_that_masks_nothing_costs_what_the_dense_layer_costs(search: Any) -> None:
    found = search(ratios=(0.05, 0.5), trials=2)  # of 8 rows, 0.05 is none

    assert found.trials[0].cost == 1
    assert found.best.cost < 1


def test_where_no_layer_can_be_compressed_the_reason_is_an_error(
    search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise tersely.SessionError("no such kernel")

    monkeypatch.setattr(tersely.Session, "shrink", refuse)

    with pytest.raises(tersely.SessionError, match=r"no layer can be compressed alone; .*kernel"):
        search()


def test_latency_is_measured_beside_the_dense_model(
    search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tersely.searching.costs.costing.SECONDS", 0.02)

    found = search(objective="latency", trials=1, ratios=(0.5,))

    assert found.trials[0].cost > 0


def test_without_optuna_it_says_how_to_install_it(job: Any, fresh: Any) -> None:
    code = "import sys; sys.modules['optuna'] = None; from tersely.cli.start import main; main()"
    done = fresh.run("-c", code, "search", str(job.file), "--max-drop", "1", cwd=job.folder)

    assert done.returncode == 1
    assert f'a search needs optuna, {LIBRARY_NOT_INSTALLED} "tersely[' in (done.stderr)


KILLED = """
import os, random, signal, sys, threading
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import toys
from rich.console import Console
from tersely.searching.search import job as searching

chance = random.Random(5)
wanted = searching.Wanted(max_drop=40, trials=12, ratios=(0.25, 0.5, 0.75))
folder = Path(sys.argv[1])


def search(output, calls, delay):
    import searched

    evaluate, count = searched.evaluate, 0

    def counted(model):
        nonlocal count
        count += 1
        if count == calls:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return evaluate(model)

    searched.evaluate = counted
    with open(os.devnull, "w") as nowhere:
        searching.search_job(
            folder / "job.json", wanted, output=folder / output, console=Console(file=nowhere)
        )


def forked(*arguments):
    pid = os.fork()
    if not pid:
        status = 1
        try:
            search(*arguments)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


sys.path.insert(0, str(folder))
torch.set_num_threads(1)  # threads do not survive a fork
# Everything that a search imports late, once for all processes.
warm = searching.Wanted(max_drop=40, trials=1, ratios=(0.5,))
with open(os.devnull, "w") as nowhere:
    searching.search_job(
        folder / "job.json", warm, output=folder / "warm", console=Console(file=nowhere)
    )
kills = 0
while kills < 10:
    status = forked("killed", chance.randint(2, 4), chance.uniform(0, 0.03))
    assert os.WIFSIGNALED(status), status
    kills += 1
assert forked("killed", 0, 0) == 0
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_random_ten_times_it_ends_with_the_same_recipe(
    job: Any, whole: Any, tmp_path: Path, toy_rows_code: str, fresh: Any
) -> None:
    (tmp_path / "toys.py").write_text(toy_rows_code)
    (tmp_path / "killed.py").write_text(KILLED)

    done = fresh.run(str(tmp_path / "killed.py"), str(job.folder), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (job.folder / "killed" / "search.json").read_text() == getattr(whole, "search.json")
    assert (job.folder / "killed" / "recipe.yaml").read_text() == getattr(whole, "recipe.yaml")
