"""The commands ``plan``, ``run`` and ``report``: what they print and how they exit."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from messages.files import ABSENT, no_report

from tersely.cli.main import main

RECIPE = {
    "pruning": {
        "algorithm": "toy",
        "config_list": [{"op_types": ["Linear"], "op_names": ["0", "nine"], "sparse_ratio": 0.5}],
    }
}


@pytest.fixture
def recipe(workshop: Any) -> Path:
    place = workshop.folder / "recipe.json"
    place.write_text(json.dumps(RECIPE))
    return place


def status(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


def test_plan_shows_a_job_without_running_it(
    workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status("plan", workshop.file)

    shown = capsys.readouterr().out
    assert (code, workshop.diary()) == (0, ["build"])
    assert "2 Linear by config_list[0]: 10 weights" in shown
    assert not workshop.partial.exists()


def test_plan_takes_a_recipe_and_a_model(
    workshop: Any, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status("plan", recipe, "--model", "toy_parts:build")

    assert code == 0
    assert "sparse_ratio=0.5" in capsys.readouterr().out


def test_plan_as_json_can_be_read_back(
    workshop: Any, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tersely.planning.plan import Plan

    status("plan", recipe, "--model", "toy_parts:build", "--format", "json")

    plan = Plan.from_dict(json.loads(capsys.readouterr().out))
    assert [target.name for target in plan] == ["0.weight", "0.bias"]


def test_rows_of_a_plan_come_after_its_summary_on_request(
    workshop: Any, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status("plan", recipe, "--model", "toy_parts:build", "--rows")

    shown = capsys.readouterr().out
    assert shown.index("pruning: toy") < shown.index("decided by")
    assert "pruning.config_list[0] (op_names: 0)" in shown


def test_a_job_carries_out_the_plan_that_was_written(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "plan.json"

    assert status("plan", workshop.file, "--out", written) == 0
    assert capsys.readouterr().err == f"wrote {written}\n"
    assert status("run", workshop.file, "--plan", written) == 0


def test_a_job_that_comes_to_another_plan_is_refused_before_anything_is_done(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "plan.json"
    status("plan", workshop.file, "--out", written)
    data = json.loads(written.read_text())
    data["targets"][0]["setting"]["sparse_ratio"] = 0.25
    written.write_text(json.dumps(data))
    capsys.readouterr()

    code = status("run", workshop.file, "--plan", written)

    assert code == 1
    assert (
        "0.weight: sparse_ratio was 0.25, now it is 0.5; plan again, or undo the change"
        in capsys.readouterr().err
    )
    assert not workshop.output.exists()


def test_plan_shows_what_matched_nothing_without_a_warning_of_its_own(
    workshop: Any, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status("plan", recipe, "--model", "toy_parts:build")

    shown = capsys.readouterr()
    assert "nine" in shown.out
    assert shown.err == ""


def test_a_strict_plan_fails_where_something_matched_nothing(
    workshop: Any, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status("plan", recipe, "--model", "toy_parts:build", "--strict")

    assert code == 1
    assert "nine" in capsys.readouterr().err


def test_a_recipe_without_a_model_cannot_be_planned(
    workshop: Any, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status("plan", recipe)

    assert code == 2
    assert (
        f"{recipe} is a recipe and names no model; say which with --model module:callable"
        in capsys.readouterr().err
    )


def test_plan_names_a_model_that_is_not_there(
    workshop: Any, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status("plan", recipe, "--model", "toy_parts:bild")

    assert code == 1
    assert capsys.readouterr().err == (
        "tersely: the document has 1 problem:\n"
        "  --model: 'toy_parts' has no attribute 'bild' (did you mean 'build'?)\n"
    )


def test_a_model_in_the_current_folder_is_found(
    workshop: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "recipes" / "recipe.json"
    place.parent.mkdir()
    place.write_text(json.dumps(RECIPE))
    monkeypatch.chdir(workshop.folder)

    assert status("plan", place, "--model", "toy_parts:build") == 0


def test_run_runs_a_job_and_report_shows_it_again(
    workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("run", workshop.file) == 0
    ran = capsys.readouterr().out

    assert status("report", workshop.output) == 0

    assert capsys.readouterr().out in ran


def test_finished_runs_are_compared(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, page = tmp_path / "first", tmp_path / "second", tmp_path / "compared.html"
    status("run", workshop.file, "--output", first)
    quarter = {"op_names": ["0"], "sparse_ratio": 0.25}
    workshop.write(recipe={"pruning": {"algorithm": "toy", "config_list": [quarter]}})
    status("run", workshop.file, "--output", second)
    capsys.readouterr()

    assert status("compare", first, second, "--html", page) == 0

    shown = capsys.readouterr()
    assert shown.out.splitlines()[1].split()[1::2] == ["measure", "first", "second"]
    assert {"- sparse_ratio: 0.5", "+ sparse_ratio: 0.25"} <= {
        " ".join(line.split()) for line in shown.out.splitlines()
    }
    assert shown.err == f"wrote {page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_run_is_not_compared_with_itself(
    workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("compare", workshop.output, workshop.output) == 2
    assert "is given twice; compare different runs" in capsys.readouterr().err


def test_what_is_no_run_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("compare", tmp_path / "a", tmp_path / "b") == 1
    assert f"{ABSENT} output folder of a finished" in capsys.readouterr().err


def test_run_writes_where_it_is_told(workshop: Any, tmp_path: Path) -> None:
    assert status("run", workshop.file, "--output", tmp_path / "other") == 0

    assert (tmp_path / "other" / "report.html").is_file()


def test_an_interrupted_run_exits_with_130_and_can_be_resumed(
    workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (workshop.folder / "interrupt").touch()
    assert status("run", workshop.file) == 130
    assert f"continue with: tersely run {workshop.file} --resume" in " ".join(
        capsys.readouterr().out.split()
    )
    (workshop.folder / "interrupt").unlink()

    assert status("run", workshop.file, "--resume") == 0


def test_an_interrupted_run_names_the_folder_that_it_was_told_to_write(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workshop.folder / "interrupt").touch()
    status("run", workshop.file, "--output", tmp_path / "other place")

    shown = " ".join(capsys.readouterr().out.split())
    assert (
        f"continue with: tersely run {workshop.file} --output '{tmp_path}/other place' --resume"
        in shown
    )


def test_a_wrong_job_exits_with_1_and_lists_its_problems(
    workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.write(train="toy_parts:finetun")

    code = status("run", workshop.file)

    assert code == 1
    assert capsys.readouterr().err == (
        f"tersely: {workshop.file} has 1 problem:\n"
        f"{workshop.file}: train: 'toy_parts' has no attribute 'finetun' (did you mean 'finetune'?)\n"
    )


def test_a_folder_without_a_report_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status("report", tmp_path)

    assert code == 1
    assert capsys.readouterr().err == f"tersely: {no_report(tmp_path / 'report.json')}\n"


def test_report_opens_the_page_in_a_browser(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    status("run", workshop.file)

    assert status("report", workshop.output, "--open") == 0

    assert opened == [str(workshop.output / "report.html")]


def test_opening_a_page_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status("report", tmp_path, "--open")

    assert code == 1
    assert capsys.readouterr().err == f"tersely: {no_report(tmp_path / 'report.html')}\n"


def test_export_writes_a_format_of_a_finished_run_and_says_what_was_compared(
    workshop: Any, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run()

    code = status("export", workshop.output, "--format", "toy_names")

    shown = capsys.readouterr().out.splitlines()
    place = workshop.output / "exports" / "model.txt"
    assert (code, shown) == (0, [str(place), "31 bytes", "  names: 4"])
    assert place.read_text().split() == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_export_passes_options_on_and_tells_what_is_refused(
    workshop: Any, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run()

    code = status("export", workshop.output, "--format", "toy_names", "--option", "fails=refusals")

    assert code == 1
    assert "toy_names: 4 targets cannot be exported" in capsys.readouterr().err
    assert not (workshop.output / "exports").exists()
