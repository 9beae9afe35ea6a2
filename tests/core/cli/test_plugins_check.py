"""``tersely plugins check``."""

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from messages.plugins import NO_SUCH_PROVIDED, PLUGINS_LIST

import tersely
from tersely.cli.plugins.group import command
from tersely.registry import registry as registry_module
from tersely.registry.registry import Registry, load_registry

LOSSES = """
import torch

def good(student, teacher):
    return (student - teacher).pow(2).mean()

def shapeless(student, teacher):
    return (student - teacher).pow(2).mean().reshape(1)
"""


class Sample:
    @tersely.hookimpl
    def tersely_distillation_losses(self):
        return [
            tersely.LossInfo(name=name, implementation=f"sample.losses:{name}", summary="Sample.")
            for name in ("good", "shapeless")
        ]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [tersely.ScheduleInfo(name="steady", implementation="sample.losses:good")]


class Watcher:
    @tersely.hookimpl
    def tersely_finalized(self, session):
        """Watch."""


@pytest.fixture
def installed(monkeypatch, tmp_path):
    package = tmp_path / "sample"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = Registry()
    found.register(Sample(), name="sample")
    monkeypatch.setattr(registry_module, "_process_registry", found)
    yield found
    for name in ("sample", "sample.losses"):
        sys.modules.pop(name, None)


@pytest.fixture
def check(installed):
    def check(*arguments):
        return CliRunner().invoke(command, ["check", *arguments])

    return check


def test_a_good_loss_passes_every_check(check):
    result = check("good")

    assert result.exit_code == 0
    assert result.output.splitlines()[0] == "loss sample:good"
    assert "  pass  The loss is a finite 0-dim float tensor" in result.output
    assert "FAIL" not in result.output
    checks = result.output.count("  pass  ")
    assert checks > 10
    assert result.output.splitlines()[-1] == f"{checks} of {checks} checks passed"


def test_a_bad_loss_fails_with_what_is_wrong(check):
    result = check("shapeless")

    assert result.exit_code == 1
    assert (
        "  FAIL  The loss is a finite 0-dim float tensor\n"
        "        shape (4, 10): the loss has shape (1,), expected a 0-dim tensor\n"
    ) in result.output


def test_a_distribution_is_checked_whole(check):
    result = check("sample")

    heads = [line for line in result.output.splitlines() if not line.startswith(" ")]
    assert heads[:3] == [
        "loss sample:good",
        "loss sample:shapeless",
        "schedule sample:steady",
    ]


def test_an_unknown_name_is_an_error(check):
    error = check("goood").exception

    assert str(error) == f"{NO_SUCH_PROVIDED} 'goood'; did you mean 'good'?\n  {PLUGINS_LIST}"


def test_a_plugin_that_provides_nothing_has_nothing_to_check(check, installed):
    installed.register(Watcher(), name="watcher")

    error = check("watcher").exception

    assert str(error) == "watcher 0+local provides nothing that has a contract"


def test_a_broken_plugin_says_why_it_cannot_be_checked(check, tmp_path, monkeypatch):
    announce(tmp_path / "site", "bad", "nowhere_to_be_found")
    broken = load_registry(environ={}, path=[str(tmp_path / "site")])
    monkeypatch.setattr(registry_module, "_process_registry", broken)

    error = check("bad").exception

    assert isinstance(error, tersely.BrokenPluginError)
    assert str(error) == (
        "bad 1.0 is broken: importing its face nowhere_to_be_found raised ModuleNotFoundError: "
        "No module named 'nowhere_to_be_found'"
    )


def announce(site: Path, distribution: str, package: str) -> None:
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tersely]\nentry = {package}\n")
