"""The options of commands reach what the commands call, each under its own name."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

import tersely
from tersely.cli.main import cli


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a command and return the arguments that a function was called with."""

    def call(function: str, answer: object, *arguments: str) -> tuple[tuple[Any, ...], Any]:
        heard: list[tuple[tuple[Any, ...], Any]] = []

        def hear(*positional: Any, **named: Any) -> object:
            heard.append((positional, SimpleNamespace(**named)))
            return answer

        module, _, name = function.rpartition(".")
        monkeypatch.setattr(importlib.import_module(module), name, hear)
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        [one] = heard
        return one

    return call


def test_a_search_is_asked_for_what_its_options_say(call: Any) -> None:
    pytest.importorskip("optuna")

    (job, wanted), named = call(
        "tersely.searching.search.job.search_job",
        SimpleNamespace(recipe={}),
        *("search", "job.yaml", "--max-drop", "1.5", "--objective", "latency", "--trials", "7"),
        *("--seed", "3", "--ratios", "0.25,0.5", "--bits", "8,6", "--costs", "table"),
        *("--metric", "loss", "--smaller-is-better", "--by-output"),
        *("--storage", "sqlite:///shared.db", "--output", "found"),
    )

    assert job == Path("job.yaml")
    assert (wanted.max_drop, wanted.objective, wanted.trials) == (1.5, "latency", 7)
    assert (wanted.seed, wanted.ratios, wanted.bits) == (3, (0.25, 0.5), (8, 6))
    assert (wanted.costs, wanted.metric) == ("table", "loss")
    assert (wanted.is_cost, wanted.by_output) == (True, True)
    assert (named.storage, named.output) == ("sqlite:///shared.db", Path("found"))


def test_the_sensitivity_is_measured_as_its_options_say(call: Any) -> None:
    _, named = call(
        "tersely.searching.sensitivity.job.sensitivity_of_job",
        "the table",
        *("sensitivity", "job.yaml", "--ratios", "0.5", "--bits", "8", "--metric", "loss"),
        *("--smaller-is-better", "--by-output", "--no-plot", "--output", "measured"),
    )

    asked = named.asked
    assert (asked.ratios, asked.bits, asked.metric) == ((0.5,), (8,), "loss")
    assert (asked.is_cost, asked.by_output) == (True, True)
    assert (named.has_plot, named.output) == (False, Path("measured"))


def test_a_run_is_shrunk_as_its_options_say(call: Any) -> None:
    (run, output), named = call(
        "tersely.jobs.shrunk_run.shrink_run",
        ("what was removed", Path("small")),
        *("shrink", "runs/first", "--output", "small", "--round-to", "8", "--approximate"),
        *("--example", "parts:example"),
    )

    assert (run, output) == (Path("runs/first"), Path("small"))
    assert (named.round_to, named.approximate, named.example) == (8, True, "parts:example")


def test_a_run_is_exported_as_its_options_say(call: Any) -> None:
    (run, name), named = call(
        "tersely.jobs.exporting.export_run",
        SimpleNamespace(paths=(), bytes=0, checks={}),
        *("export", "runs/first", "--format", "onnx", "--output", "model.onnx"),
        *("--option", "opset=23", "--option", "note=small", "--dynamic-batch", "--quiet"),
    )

    assert (run, name, named.output) == (Path("runs/first"), "onnx", Path("model.onnx"))
    assert named.options == {"opset": 23, "note": "small"}
    assert (named.dynamic_shapes, named.console.quiet) == ("batch", True)


PLUGIN = """
import tersely


@tersely.hookimpl
def tersely_pruners():
    return [tersely.PrunerInfo(name="of_one_file", implementation="one_file:None_")]
"""

CALLS = {
    "search": ("tersely.searching.search.job.search_job", ("job.yaml", "--max-drop", "1")),
    "sensitivity": ("tersely.searching.sensitivity.job.sensitivity_of_job", ("job.yaml",)),
    "shrink": ("tersely.jobs.shrunk_run.shrink_run", ("runs/first",)),
    "export": ("tersely.jobs.exporting.export_run", ("runs/first", "--format", "onnx")),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Call a command, which stops where its work begins, and return what is seen there."""

    def call(name: str, *arguments: str) -> tuple[bool, str]:
        if name == "search":
            pytest.importorskip("optuna")
        found: list[bool] = []

        def look(*_: Any, **__: Any) -> None:
            found.append("of_one_file" in tersely.registry().pruners)
            structlog.get_logger("tersely").info("looked")
            raise KeyboardInterrupt

        function, usual = CALLS[name]
        module, _, attribute = function.rpartition(".")
        monkeypatch.setattr(importlib.import_module(module), attribute, look)
        result = CliRunner().invoke(cli, [name, *usual, *arguments])
        assert len(found) == 1, result.output
        return found[0], result.stderr

    yield call
    structlog.reset_defaults()
    sys.modules.pop("tersely_file_one_file", None)


@pytest.mark.parametrize("name", ["search", "sensitivity", "shrink", "export"])
def test_a_plugin_of_one_file_is_there_while_a_command_runs(
    seen: Any, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "one_file.py"
    file.write_text(PLUGIN)

    assert seen(name, "--plugin", str(file))[0]
    assert "of_one_file" not in tersely.registry().pruners


@pytest.mark.parametrize("name", ["search", "sensitivity"])
def test_the_files_of_a_trusted_job_are_there_while_a_command_runs(
    seen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one_file.py").write_text(PLUGIN)
    Path("job.yaml").write_text("plugins: [one_file.py]\n")

    assert not seen(name)[0]
    assert seen(name, "--trust")[0]


@pytest.mark.parametrize("name", ["search", "sensitivity", "shrink", "export"])
def test_events_of_a_command_are_lines_of_json_on_request(seen: Any, name: str) -> None:
    first = seen(name, "--log-format", "json")[1].splitlines()[0]

    assert json.loads(first)["event"] == "looked"
