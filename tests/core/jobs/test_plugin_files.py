"""Plugins of one file in jobs: ``--plugin``, ``--trust``, and that naming a file runs nothing."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from messages.files import OTHER_JOB

import tersely
from tersely.cli.main import main
from tersely.errors import ConfigError
from tersely.jobs.finished import finished_job

SOURCE = """
from pathlib import Path

import tersely

with (Path(__file__).parent / "ran.txt").open("a") as stream:
    stream.write("ran\\n")


class Magnitude:
    def importance(self, target):
        return target.tensor.detach().abs()


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="of_a_file", implementation="magnitude:Magnitude", summary="Magnitude."
        )
    ]
"""

RECIPE = {
    "pruning": {
        "algorithm": "of_a_file",
        "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
    }
}


@pytest.fixture
def shop(workshop: Any) -> Iterator[Any]:
    """A job whose pruner is in a file beside it."""
    workshop.code("magnitude.py", SOURCE)
    workshop.write(recipe=RECIPE, plugins=["./magnitude.py"], train=None, data=None)
    yield workshop
    sys.modules.pop("tersely_file_magnitude", None)


def status(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def times_run(shop: Any) -> int:
    place = shop.folder / "ran.txt"
    return len(place.read_text().splitlines()) if place.exists() else 0


def test_a_job_that_names_a_file_does_not_run_it(shop: Any, capsys: Any) -> None:
    code = status("run", shop.file)

    assert (code, times_run(shop), shop.diary()) == (1, 0, [])
    assert (
        "plugins[0]: './magnitude.py' is not loaded, since naming a file does not run it (read "
        f"it, and then load it with --plugin {shop.folder / 'magnitude.py'}, or in Python with "
        "tersely.registry().register_file(...))"
    ) in capsys.readouterr().err


def test_a_job_that_is_trusted_runs_with_its_files(shop: Any) -> None:
    assert status("run", shop.file, "--trust", "--quiet") == 0
    assert times_run(shop) == 1


def test_a_file_that_is_given_need_not_be_trusted(shop: Any) -> None:
    given = shop.folder / "magnitude.py"

    assert status("run", shop.file, "--plugin", given, "--quiet") == 0


def test_a_file_that_is_given_twice_is_run_once(shop: Any) -> None:
    given = ("--plugin", shop.folder / "magnitude.py")

    assert status("plan", shop.file, *given, *given, "--trust") == 0
    assert times_run(shop) == 1


def test_a_file_serves_a_job_that_does_not_name_it(shop: Any, capsys: Any) -> None:
    shop.write(recipe=RECIPE, train=None, data=None)

    assert status("plan", shop.file, "--plugin", shop.folder / "magnitude.py") == 0
    assert "pruning: of_a_file" in capsys.readouterr().out


def test_a_file_is_forgotten_after_the_command(shop: Any) -> None:
    status("plan", shop.file, "--trust")

    assert "of_a_file" not in tersely.registry().pruners


def test_validate_says_what_it_did_not_load(shop: Any, capsys: Any) -> None:
    code = status("validate", shop.file)

    shown = capsys.readouterr()
    assert (code, times_run(shop)) == (1, 0)
    assert "found 'of_a_file', expected a pruner" in shown.out
    assert f"{shop.file}:" in shown.err
    assert "plugins[0]: './magnitude.py' is not loaded" in shown.err


def test_validate_of_a_trusted_job_knows_its_names(shop: Any, capsys: Any) -> None:
    code = status("validate", "--trust", shop.file)

    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    assert shown.out == f"{shop.file}: valid (job)\n"


def test_a_resumed_run_needs_the_same_file(shop: Any, capsys: Any) -> None:
    status("run", shop.file, "--trust", "--quiet")
    shop.code("magnitude.py", SOURCE + "# changed\n")

    code = status("run", shop.file, "--trust", "--resume", "--quiet")

    assert code == 1
    assert f"{OTHER_JOB}: plugins changed" in capsys.readouterr().err


def test_a_finished_run_is_read_with_its_file(shop: Any) -> None:
    status("run", shop.file, "--trust", "--quiet")

    with pytest.raises(ConfigError, match=r"magnitude\.py' is not loaded"):
        finished_job(shop.output)

    tersely.registry().register_file(shop.folder / "magnitude.py")
    try:
        assert finished_job(shop.output).recipe.stages[0].algorithm == "of_a_file"
    finally:
        tersely.registry().unregister("magnitude.py")


def test_a_stopped_run_says_how_it_goes_on(shop: Any, capsys: Any) -> None:
    shop.write(recipe=RECIPE, plugins=["./magnitude.py"], data=None)
    shop.code("fail", "")

    with pytest.raises(RuntimeError, match="the disk is full"):
        main(["run", str(shop.file), "--trust"])

    said = "".join(capsys.readouterr().out.split())
    assert (
        f"tersely run {shop.file} --plugin {shop.folder / 'magnitude.py'} --resume".replace(" ", "")
        in said
    )


def test_the_record_of_a_run_keeps_the_digest(shop: Any) -> None:
    status("run", shop.file, "--trust", "--quiet")

    report = json.loads((shop.output / "report.json").read_text())
    assert report["versions"]["magnitude.py"].startswith("0+sha256.")


def test_what_a_file_provides_is_listed_described_and_checked(shop: Any, capsys: Any) -> None:
    given = ("--plugin", shop.folder / "magnitude.py")

    assert status("plugins", "list", *given) == 0
    assert "of_a_file" in capsys.readouterr().out
    assert status("plugins", "info", "of_a_file", *given) == 0
    assert "magnitude.py:of_a_file" in capsys.readouterr().out
    assert status("plugins", "check", "magnitude.py", *given) == 0
    assert "FAIL" not in capsys.readouterr().out


def test_the_schema_knows_the_options_of_a_file(shop: Any, capsys: Any) -> None:
    assert status("schema", "--plugin", shop.folder / "magnitude.py") == 0
    assert '"of_a_file"' in capsys.readouterr().out


def test_two_files_of_one_name_are_refused_in_words_of_the_shell(shop: Any, capsys: Any) -> None:
    other = shop.folder / "other" / "magnitude.py"
    other.parent.mkdir()
    other.write_text(SOURCE)
    first = shop.folder / "magnitude.py"

    code = status("validate", shop.file, "--plugin", first, "--plugin", other)

    assert code == 1
    assert capsys.readouterr().err == (
        f"tersely: the plugin files {first} and {other} have one name, with which the qualified "
        "names of what they provide begin; rename one of them\n"
    )
    assert "of_a_file" not in tersely.registry().pruners
