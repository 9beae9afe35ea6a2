"""One version everywhere, and an exact pin for everything that is ever installed."""

import configparser
import re
import sys
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECTS = (ROOT / "pyproject.toml", *sorted((ROOT / "plugins").glob("*/pyproject.toml")))
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def _project(file: Path) -> dict:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _pinned(python: str) -> dict[str, str]:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return {
        canonicalize_name(pin.name): str(pin.specifier)
        for pin in _pins()
        if pin.marker is None or pin.marker.evaluate(environment)
    }


def test_all_distributions_have_one_version():
    assert {_project(file)["project"]["version"] for file in PROJECTS} == {"0.1.0"}


def test_all_distributions_accept_the_same_pythons():
    assert {_project(file)["project"]["requires-python"] for file in PROJECTS} == {">=3.10"}


def test_every_pin_is_exact():
    loose = [str(pin) for pin in _pins() if not re.fullmatch(r"==[^,*]+", str(pin.specifier))]
    assert loose == []


def test_torch_is_pinned_to_the_version_of_the_golden_numbers():
    assert _pinned("3.11")["torch"] == "==2.13.0"


@pytest.mark.parametrize("python", PYTHONS)
def test_no_package_is_pinned_twice(python):
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    names = [
        canonicalize_name(pin.name)
        for pin in _pins()
        if pin.marker is None or pin.marker.evaluate(environment)
    ]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_bounds(python):
    pinned = _pinned(python)
    wrong = []
    for file in PROJECTS:
        project = _project(file)["project"]
        extras = project.get("optional-dependencies", {}).values()
        for line in (*project["dependencies"], *chain.from_iterable(extras)):
            wanted = Requirement(line)
            if wanted.name == "tersely":
                continue
            pin = pinned.get(canonicalize_name(wanted.name), "")
            if not wanted.specifier.contains(pin.removeprefix("==") or "0"):
                wrong.append(f"{line}: {pin or 'no pin'}")
    assert wrong == []


def test_everything_that_tox_installs_is_pinned():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    pinned = _pinned("3.11")
    wanted = {
        line.strip()
        for section in tox.sections()
        for line in tox[section].get("deps", "").splitlines()
        if line.strip() and not line.strip().startswith(("{", "-e", "#"))
    }
    assert wanted
    assert sorted(name for name in wanted if canonicalize_name(name) not in pinned) == []


def test_requirements_install_the_core_and_every_family():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    families = [f"./plugins/{file.parent.name}" for file in PROJECTS[1:]]
    assert lines[1:2] == ["-c constraints.txt"]
    without_extras = {line.partition("[")[0] for line in lines[3 : 3 + len(families)]}
    assert lines[2] == ".[cli,report,search]"
    assert without_extras == set(families)
