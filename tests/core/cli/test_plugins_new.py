"""``tersely plugins new``: what it writes is publishable as it is, and what it refuses."""

import os
import subprocess
import sys
from importlib import import_module

import pytest
from click.testing import CliRunner

import tersely
from tersely.cli.plugins.group import command
from tersely.document.load import load_recipe
from tersely.document.reading.yaml_text import read_yaml
from tersely.registry import registry as registry_module
from tersely.registry.registry import Registry

KINDS = ("pruner", "quantizer", "granularity", "loss", "schedule", "exporter")
LONGEST = "a_name_of_exactly_thirty_four_long"


class Acme:
    __version__ = "1.2"

    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(name=name, implementation="acme:Thin") for name in ("thin", "level")
        ]


@pytest.fixture
def installed(monkeypatch):
    found = Registry()
    found.register(Acme(), name="acme")
    monkeypatch.setattr(registry_module, "_process_registry", found)
    return found


@pytest.fixture
def new(installed):
    def new(*arguments):
        return CliRunner().invoke(command, ["new", *map(str, arguments)])

    return new


@pytest.fixture
def written(new, installed, tmp_path, monkeypatch):
    """Write a package of a kind and register its face; returns the name."""
    packages = []

    def written(kind):
        new(f"my_{kind}", "--kind", kind, "--output", tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path / "src"))
        packages.append(f"tersely_my_{kind}")
        installed.register(import_module(packages[-1]))
        return f"my_{kind}"

    yield written
    for package in packages:
        sys.modules.pop(package)


def environment(folder):
    """The environment of this process, with what is written in a folder on the path."""
    site = folder / "site"
    paths = [site, folder / "src", *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}


def run(folder, *arguments):
    """Run a module of Python in a folder, with what is written there announced."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=environment(folder),
    )


def announce(folder, kind):
    info = folder / "site" / f"tersely_my_{kind}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: tersely-my-{kind}\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text(f"[tersely]\nmy_{kind} = tersely_my_{kind}\n")


def test_a_package_is_written_with_all_it_needs(new, tmp_path):
    folder = tmp_path / "new"

    result = new("my_score", "--output", folder)

    assert result.exit_code == 0
    assert result.output == (
        f"{folder}: wrote tersely-my-score with the pruner 'my_score'; next:\n"
        f'  pip install -e "{folder}[test]"\n'
        f"  tersely plugins check my_score\n"
        f"  pytest {folder}\n"
    )
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(folder).as_posix() for path in files) == [
        ".github/workflows/tests.yml",
        ".gitignore",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "src/tersely_my_score/__init__.py",
        "src/tersely_my_score/my_score.py",
        "src/tersely_my_score/py.typed",
        "tests/test_contract.py",
        "tests/test_numbers.py",
        "tox.ini",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_its_own_tests(new, tmp_path, kind, fresh):
    new(f"my_{kind}", "--kind", kind, "--output", tmp_path)
    announce(tmp_path, kind)

    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    ran = fresh.run(*command, cwd=tmp_path, env=environment(tmp_path))

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


@pytest.mark.parametrize("name", ["my_own", LONGEST])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_ruff(new, tmp_path, kind, name):
    new(name, "--kind", kind, "--output", tmp_path)

    checked = run(tmp_path, "ruff", "check", "--no-cache")
    formatted = run(tmp_path, "ruff", "format", "--check", "--diff", "--no-cache")

    assert checked.returncode == 0, checked.stdout
    assert formatted.returncode == 0, formatted.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("mypy")  # one process, so that torch is read once
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_mypy_in_strict_mode(new, tmp_path, kind, tmp_path_factory):
    new(f"my_{kind}", "--kind", kind, "--output", tmp_path)
    cache = tmp_path_factory.getbasetemp() / "mypy"  # what torch is typed as, read once

    ran = run(tmp_path, "mypy", "--cache-dir", str(cache))

    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_face_describes_its_kind_with_an_option_and_its_example(written, installed, kind):
    name = written(kind)

    catalog = {"loss": "losses", "granularity": "granularities"}.get(kind, f"{kind}s")
    options = getattr(installed, catalog).info(name).options
    assert [*options["properties"]] == [*options["examples"][0]]


@pytest.mark.parametrize("kind", ["pruner", "quantizer", "granularity", "loss", "schedule"])
def test_the_recipe_of_a_written_readme_is_valid(written, tmp_path, kind):
    written(kind)

    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, _, recipe = readme.partition("```yaml\n")

    load_recipe(read_yaml(recipe.partition("```")[0]).data)


def test_the_author_is_in_the_licence_and_in_the_project_file(new, tmp_path):
    new("my_score", "--author", 'Ada "A" Å', "--output", tmp_path)

    licence = (tmp_path / "LICENSE").read_text(encoding="utf-8")
    project = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    assert 'Ada "A" Å\n' in licence
    assert r'authors = [{ name = "Ada \"A\" Å" }]' in project


def test_without_an_author_it_is_the_developers(new, tmp_path):
    new("my_score", "--output", tmp_path)

    assert "The tersely-my-score developers\n" in (tmp_path / "LICENSE").read_text()


def test_an_author_of_several_lines_is_refused(new, tmp_path):
    result = new("my_score", "--author", "a\nb", "--output", tmp_path)

    assert result.exit_code == 2
    assert r"Invalid value for --author: 'a\nb' is not one line of text" in result.output
    assert list(tmp_path.iterdir()) == []


def test_without_output_the_folder_has_the_distributions_name(new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    new("my_score")

    assert (tmp_path / "tersely-my-score" / "pyproject.toml").exists()


def test_nothing_is_overwritten(new, tmp_path):
    (tmp_path / "README.md").write_text("mine")

    result = new("my_score", "--output", tmp_path)

    assert result.exit_code == 1
    assert result.output == (
        f"Error: {tmp_path} holds README.md already, and nothing is overwritten; choose another "
        f"folder with --output\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_failed_write_leaves_nothing(new, tmp_path):
    # tests is a file, so the folder of that name cannot be made, after others were.
    (tmp_path / "tests").write_text("mine")

    result = new("my_score", "--output", tmp_path)

    assert result.exit_code == 1
    assert result.output == f"Error: {tmp_path} cannot be written: File exists\n"
    assert [path.name for path in tmp_path.iterdir()] == ["tests"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Score", "'My-Score' must match ^[a-z][a-z0-9_]*$, such as 'my_score'"),
        ("1", "'1' must match ^[a-z][a-z0-9_]*$"),
        (
            "lambda",
            "'lambda' is a Python keyword, and a module takes this name; choose another, such as "
            "'lambda_pruner'",
        ),
        ("none", "'none' is a Python keyword"),
        ("thin", "acme 1.2 provides a pruner called 'thin' already; choose another name"),
        (
            f"{LONGEST}er",
            f"'{LONGEST}er' has 36 characters; a package is named after it, so choose one of at "
            f"most 34",
        ),
        (
            "pruning",
            "'pruning' would be the package tersely_pruning, which already exists; choose another "
            "name, such as 'pruning_pruner'",
        ),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(new, tmp_path, name, message):
    result = new(name, "--output", tmp_path)

    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_function_is_not_called_like_what_its_module_imports(new, tmp_path):
    result = new("torch", "--kind", "loss", "--output", tmp_path)

    assert result.exit_code == 2
    assert "'torch' is what the module of a loss imports; choose another" in result.output
