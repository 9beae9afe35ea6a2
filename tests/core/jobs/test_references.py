"""References of a job: what they find, what they say when they do not, and what they leave."""

import sys
from pathlib import Path

import pytest
from messages.files import AMONG_PACKAGES

from tersely.errors import ConfigError, Problem
from tersely.jobs.references import find_callable, job_imports, load_reference


def write(folder: Path, name: str, source: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(source)


def problem(folder: Path, reference: str) -> Problem:
    with job_imports(folder):
        found = find_callable(reference, path="model", folder=folder)
    assert isinstance(found, Problem)
    return found


def test_a_reference_is_found_beside_the_job(tmp_path: Path) -> None:
    write(tmp_path, "beside_the_job.py", "def build():\n    return 'mine'\n")

    with job_imports(tmp_path):
        build = load_reference("beside_the_job:build", path="model", folder=tmp_path)

    assert build() == "mine"


def test_a_reference_may_name_a_method(tmp_path: Path) -> None:
    with job_imports(tmp_path):
        method = load_reference("pathlib:Path.home", path="model", folder=tmp_path)

    assert method() == Path.home()


def test_the_folder_is_searched_only_while_the_job_runs(tmp_path: Path) -> None:
    before = list(sys.path)

    with job_imports(tmp_path):
        inside = sys.path[0]

    assert inside == str(tmp_path)
    assert sys.path == before


def test_two_jobs_may_name_their_modules_alike(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, "same_name_model.py", f"def build():\n    return {name!r}\n")
    built = []

    for name in ("first", "second", "first"):
        with job_imports(tmp_path / name):
            folder = tmp_path / name
            built.append(load_reference("same_name_model:build", path="model", folder=folder)())

    assert built == ["first", "second", "first"]


def test_a_module_that_another_job_hid_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "mine", "hidden_model.py", "NAME = 'mine'\n")
    write(tmp_path / "job", "hidden_model.py", "def build():\n    return 'job'\n")
    with job_imports(tmp_path / "mine"):
        import hidden_model as mine  # type: ignore[import-not-found]  # written above

    with job_imports(tmp_path / "job"):
        load_reference("hidden_model:build", path="model", folder=tmp_path / "job")

    assert sys.modules["hidden_model"] is mine


def test_an_installed_module_stays_although_the_folder_has_its_name(tmp_path: Path) -> None:
    write(tmp_path, "json.py", "")
    known = sys.modules["json"]

    with job_imports(tmp_path):
        inside = sys.modules["json"]

    assert inside is known


@pytest.mark.parametrize("reference", ["models", "models:", ":build", "a:b:c"])
def test_a_reference_needs_a_module_and_a_callable(tmp_path: Path, reference: str) -> None:
    assert str(problem(tmp_path, reference)) == (
        f"model: found {reference!r}, expected 'module:callable' such as 'my_models:build'"
    )


def test_a_module_that_lacks_something_says_what(tmp_path: Path) -> None:
    write(tmp_path, "needy.py", "import not_installed_anywhere\n")

    assert str(problem(tmp_path, "needy:build")) == (
        "model: importing 'needy' failed: No module named 'not_installed_anywhere' (install what "
        "it needs)"
    )


def test_a_module_that_raises_says_what(tmp_path: Path) -> None:
    write(tmp_path, "raising.py", "raise ValueError('no GPU')\n")

    assert str(problem(tmp_path, "raising:build")) == (
        "model: importing 'raising' failed: ValueError: no GPU"
    )


def test_a_submodule_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, "alone.py", "")

    assert problem(tmp_path, "alone.inside:build").message == (
        f"there is no module 'alone.inside' in {tmp_path} {AMONG_PACKAGES}"
    )


def test_load_reference_raises_the_problem(tmp_path: Path) -> None:
    with job_imports(tmp_path), pytest.raises(ConfigError) as caught:
        load_reference("pathlib:Pth", path="--model", folder=tmp_path)

    assert str(caught.value) == (
        "the document has 1 problem:\n"
        "  --model: 'pathlib' has no attribute 'Pth' (did you mean 'Path'?)"
    )
