"""What is in the wheels and sdists, and that they work where there is no repository."""

import json
import re
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from messages.plugins import LIBRARY_NOT_INSTALLED

ROOT = Path(__file__).parents[2]
FAMILIES = (
    "distillation",
    "export",
    "granularity",
    "integrations",
    "pruning",
    "quantization",
)
RECIPE = """\
pruning:
  algorithm: l1_norm
  config_list:
    - op_types: [Linear]
      sparse_ratio: 0.5
"""


def _wheel(built: Path, name: str) -> zipfile.ZipFile:
    [file] = built.glob(f"{name}-*.whl")
    return zipfile.ZipFile(file)


def _metadata(built: Path, name: str):
    wheel = _wheel(built, name)
    [file] = [entry for entry in wheel.namelist() if entry.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(file).decode())


def test_there_is_a_wheel_and_an_sdist_of_every_distribution(built):
    names = sorted(file.name.split("-0.1.0")[0] for file in built.iterdir())
    expected = ["tersely", *(f"tersely_{family}" for family in FAMILIES)]
    assert names == sorted(expected * 2)


def test_the_wheel_of_the_core_carries_the_whole_specification(built):
    inside = {
        name.removeprefix("tersely/spec/")
        for name in _wheel(built, "tersely").namelist()
        if name.startswith("tersely/spec/")
    }
    spec = ROOT / "spec"
    assert inside == {
        file.relative_to(spec).as_posix() for file in spec.rglob("*") if file.is_file()
    }


def test_the_wheel_of_the_core_carries_every_file_of_the_package(built):
    inside = set(_wheel(built, "tersely").namelist())
    package = ROOT / "core"
    files = {
        file.relative_to(package).as_posix()
        for file in (package / "tersely").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert sorted(files - inside) == []


def test_the_wheels_carry_nothing_but_their_package_and_metadata(built):
    for name in ("tersely", *(f"tersely_{family}" for family in FAMILIES)):
        tops = {entry.split("/")[0] for entry in _wheel(built, name).namelist()}
        assert tops == {name, f"{name}-0.1.0.dist-info"}


@pytest.mark.parametrize("name", ["tersely", *(f"tersely_{family}" for family in FAMILIES)])
def test_every_wheel_is_typed_and_licensed(built, name):
    entries = _wheel(built, name).namelist()
    assert f"{name}/py.typed" in entries
    assert f"{name}-0.1.0.dist-info/licenses/LICENSE" in entries
    assert _metadata(built, name)["License-Expression"] == "MIT"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_depends_on_the_core_and_on_nothing_of_a_sibling(built, family):
    metadata = _metadata(built, f"tersely_{family}")
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert needed == ["tersely<1,>=0.1"]


def test_each_framework_is_an_extra_of_the_integrations(built):
    metadata = _metadata(built, "tersely_integrations")
    expected = ["accelerate", "lightning", "mlflow", "tensorboard", "transformers"]
    assert sorted(metadata.get_all("Provides-Extra")) == expected


def test_the_sdist_of_the_core_has_no_tests_and_no_golden_data(built):
    [file] = built.glob("tersely-*.tar.gz")
    with tarfile.open(file) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert tops <= {
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "constraints.txt",
        "core",
        "docs",
        "pyproject.toml",
        "spec",
        ".gitignore",
    }


def test_the_installed_command_tells_its_version(installed):
    done = installed.run("tersely", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.1.0" in done.stdout


def test_the_installed_command_finds_its_schemas(installed):
    (installed.elsewhere / "recipe.yaml").write_text(RECIPE)
    done = installed.run("tersely", "validate", "recipe.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_installed_family_is_listed_as_usable(installed):
    done = installed.run("tersely", "plugins", "list", "--format", "json")
    listed = json.dumps(json.loads(done.stdout))
    for family in FAMILIES:
        assert f"tersely-{family}" in listed
    assert '"broken"' not in listed


def test_an_installed_model_is_pruned(installed):
    code = (
        "import torch, tersely\n"
        "model = torch.nn.Sequential(torch.nn.Linear(4, 4))\n"
        "config = [{'op_types': ['Linear'], 'sparse_ratio': 0.5}]\n"
        "print(tersely.prune(model, config, algorithm='l1_norm').sparsity()['0']['weight'])\n"
    )
    done = installed.run("python", "-c", code)
    assert (done.stdout, done.returncode) == ("0.5\n", 0), done.stderr


def test_the_core_brings_no_heavy_library(built):
    metadata = _metadata(built, "tersely")
    needed = sorted(
        re.match(r"[\w-]+", line).group()
        for line in metadata.get_all("Requires-Dist")
        if "extra ==" not in line
    )
    assert needed == [
        "attrs",
        "jsonschema",
        "numpy",
        "packaging",
        "pluggy",
        "pyyaml",
        "safetensors",
        "structlog",
        "torch",
    ]
    assert sorted(metadata.get_all("Provides-Extra")) == ["cli", "report", "search"]


PRUNED_BARE = """
import torch, tersely


class Magnitude:
    def importance(self, target):
        return target.tensor.detach().abs()


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [tersely.PrunerInfo(name="magnitude", implementation="__main__:Magnitude")]


tersely.registry().register(Face(), name="here")
model = torch.nn.Sequential(torch.nn.Linear(4, 4))
config = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
session = tersely.prune(model, config, algorithm="magnitude")
print(session.plan)
print(session.report())
try:
    session.report().to_html("report.html")
except tersely.MissingExtraError as error:
    print(error)
"""


def test_the_core_alone_plans_prunes_and_prints(bare):
    (bare.elsewhere / "pruned.py").write_text(PRUNED_BARE)
    done = bare.run("python", "pruned.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 targets in 1 selected module" in done.stdout
    assert "50.00 %" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        f'a report\'s page needs matplotlib, {LIBRARY_NOT_INSTALLED} "tersely[report]"'
    )


def test_the_command_of_the_core_alone_tells_what_to_install(bare):
    done = bare.run("tersely", "--version")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f'tersely: the command line needs click, {LIBRARY_NOT_INSTALLED} "tersely[cli]"\n'
    )


def test_the_installed_packages_agree_about_their_dependencies(installed):
    done = installed.run("python", "-m", "pip", "check")
    assert done.returncode == 0, done.stdout
