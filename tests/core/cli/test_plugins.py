"""``tersely plugins``: its listing, details, checks and scaffold, on a registry made for each test."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from messages.plugins import NO_SUCH_PROVIDED, PLUGINS_LIST

import tersely
from tersely.cli.plugins.group import command
from tersely.registry import registry as registry_module
from tersely.registry.registry import Registry

OPTIONS = {
    "type": "object",
    "properties": {"power": {"type": "number"}},
    "additionalProperties": False,
}


class Acme:
    __version__ = "1.2"

    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(
                name="thin",
                implementation="acme:Thin",
                summary="Removes what is thin.",
                options=OPTIONS,
                paper="Acme et al., 2020",
            )
        ]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [tersely.ScheduleInfo(name="steady", implementation="acme:steady")]


class Watcher:
    @tersely.hookimpl
    def tersely_finalized(self, session):
        """Watch."""


@pytest.fixture
def installed(monkeypatch):
    found = Registry()
    found.register(Acme(), name="acme")
    monkeypatch.setattr(registry_module, "_process_registry", found)
    return found


@pytest.fixture
def call(installed):
    def call(*arguments):
        return CliRunner().invoke(command, [str(argument) for argument in arguments])

    return call


def lines(text):
    return [line.split() for line in text.splitlines()]


def test_the_list_is_a_table(call):
    result = call("list")

    assert result.exit_code == 0
    assert lines(result.output) == [
        ["name", "kind", "distribution", "version", "state", "loading", "summary"],
        ["thin", "pruner", "acme", "1.2", "ok", "Removes", "what", "is", "thin."],
        ["steady", "schedule", "acme", "1.2", "ok"],
    ]


def test_the_list_shows_clashing_names_qualified(call, installed):
    installed.register(Acme(), name="other")

    names = [row[0] for row in lines(call("list").output)]

    assert names == ["name", "acme:thin", "other:thin", "acme:steady", "other:steady"]


def test_the_list_shows_a_plugin_without_names(call, installed):
    installed.register(Watcher(), name="watcher")

    assert lines(call("list").output)[-1][:4] == ["watcher", "watcher", "0+local", "ok"]


def test_the_list_is_data_on_request(call):
    data = json.loads(call("list", "--format", "json").output)

    assert data["plugins"] == [
        {
            "name": "acme",
            "distribution": "acme",
            "version": "1.2",
            "state": "ok",
            "reason": "",
            "provides": [
                {"kind": "pruner", "name": "thin"},
                {"kind": "schedule", "name": "steady"},
            ],
            "loading": None,
            "file": None,
            "overruled": [],
        }
    ]
    assert data["names"][0] == {
        "name": "thin",
        "kind": "pruner",
        "distribution": "acme",
        "version": "1.2",
        "state": "ok",
        "loading": "",
        "summary": "Removes what is thin.",
    }


def test_default_targets_that_the_core_overrules_are_a_finding(call, installed):
    class Core:
        @tersely.hookimpl
        def tersely_module_settings(self):
            return [tersely.ModuleSetting(module_type="torch.nn.Linear", pruning={"weight": {}})]

    class Meddler:
        @tersely.hookimpl
        def tersely_module_settings(self):
            own = {"weight": {}, "bias": {}}
            return [
                tersely.ModuleSetting(module_type="Linear", pruning=own),
                tersely.ModuleSetting(module_type="mine.Linear", pruning=own),
                tersely.ModuleSetting(module_type="torch.nn.Linear", distillation=own),
            ]

    installed.register(Core(), name="tersely")
    installed.register(Meddler(), name="meddler")

    assert lines(call("list").output)[-1][4:] == (
        [
            "default",
            "targets",
            "that",
            "have",
            "no",
            "effect:",
            "Linear",
            "(that",
            "of",
            "tersely",
            "0+local",
            "takes",
            "precedence)",
        ]
    )
    assert json.loads(call("list", "--format", "json").output)["plugins"][-1]["overruled"] == [
        "Linear (that of tersely 0+local takes precedence)"
    ]


def test_a_broken_plugin_is_listed_with_its_reason(tmp_path):
    info = tmp_path / "bad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tersely]\nbad = nowhere_to_be_found\n")

    listed = subprocess.run(
        [sys.executable, "-m", "tersely.cli.main", "plugins", "list"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(tmp_path), "TERSELY_PLUGINS": "bad"},
    )

    row = next(line for line in listed.stdout.splitlines() if line.startswith("bad "))
    assert row.split()[:4] == ["bad", "bad", "1.0", "broken"]
    assert "ModuleNotFoundError: No module named 'nowhere_to_be_found'" in row


def test_info_shows_everything_of_a_descriptor(call):
    result = call("info", "thin")

    assert result.exit_code == 0
    assert (
        result.output
        == """\
thin (pruner)
  distribution         acme
  version              1.2
  qualified            acme:thin
  implementation       acme:Thin
  summary              Removes what is thin.
  options
    {
      "type": "object",
      "properties": {
        "power": {
          "type": "number"
        }
      },
      "additionalProperties": false
    }
  paper                Acme et al., 2020
  abilities            those that it inherits
  needs                what its abilities need
  target kinds         parameter, buffer, input, output
  granularities        any
  default granularity  element
  default scope        target
"""
    )


def test_info_of_a_distribution_shows_the_plugin(call):
    assert (
        call("info", "acme").output
        == """\
acme (plugin)
  distribution         acme
  version              1.2
  state                ok
  provides             pruner thin, schedule steady
"""
    )


def test_info_is_data_on_request(call):
    (data,) = json.loads(call("info", "thin", "--format", "json").output)

    assert data["options"] == OPTIONS
    assert data["kind"] == "pruner"


def test_info_shows_every_kind_of_a_name(call, installed):
    class Twin:
        @tersely.hookimpl
        def tersely_schedules(self):
            return [tersely.ScheduleInfo(name="thin", implementation="a:b")]

    installed.register(Twin())

    heads = [line for line in call("info", "thin").output.splitlines() if line.startswith("thin")]
    assert heads == ["thin (pruner)", "thin (schedule)"]
    assert "(pruner)" not in call("info", "thin", "--kind", "schedule").output


def test_info_of_an_unknown_name_names_the_nearest(call):
    error = call("info", "thinn").exception

    assert isinstance(error, tersely.UnknownPluginError)
    assert str(error) == f"{NO_SUCH_PROVIDED} 'thinn'; did you mean 'thin'?\n  {PLUGINS_LIST}"


def test_info_of_an_unknown_name_of_a_kind_is_the_registrys_error(call):
    error = call("info", "steady", "--kind", "pruner").exception

    assert str(error).startswith("no plugin provides a pruner called 'steady'; there are thin")
