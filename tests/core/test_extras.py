"""What works without the libraries of the extras, and what the error says where they are needed."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
from messages.plugins import LIBRARY_NOT_INSTALLED

from tersely.errors import MissingExtraError
from tersely.extras import EXTRAS, extra

ABSENT = """
import json, sys
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError, as if it were not there
"""
REPORT = """
from tersely.reporting.report import Report
report = Report(rows=(), metrics={"before.accuracy": 0.75})
"""


def run_without(*packages: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ABSENT + code, json.dumps(packages)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_library_is_an_error_with_the_command_that_installs_it() -> None:
    with pytest.raises(MissingExtraError) as caught, extra("report", purpose="a page"):
        raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")

    assert str(caught.value) == (f'a page needs jinja2, {LIBRARY_NOT_INSTALLED} "tersely[report]"')
    assert (caught.value.package, caught.value.extra) == ("jinja2", "report")
    assert isinstance(caught.value, ImportError)


def test_a_missing_part_of_a_library_counts_as_the_library() -> None:
    with pytest.raises(MissingExtraError) as caught, extra("cli", purpose="a job"):
        raise ModuleNotFoundError("No module named 'rich.console'", name="rich.console")

    assert caught.value.package == "rich"


def test_another_missing_module_is_not_explained_away() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, extra("cli", purpose="a job"):
        raise ModuleNotFoundError("No module named 'pygments'", name="pygments")

    assert not isinstance(caught.value, MissingExtraError)


def test_the_error_keeps_its_data_in_copies() -> None:
    error = MissingExtraError("a job needs rich", package="rich", extra="cli")

    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(again), again.package, again.extra) == ("a job needs rich", "rich", "cli")


def test_a_report_prints_without_any_extra() -> None:
    absent = [package for packages in EXTRAS.values() for package in packages]

    done = run_without(*absent, code=REPORT + "print(report)")

    assert "│ accuracy │   0.75 │" in done.stdout, done.stderr


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_page_of_a_report_says_which_library_it_lacks(package) -> None:
    done = run_without(package, code=REPORT + "report.to_html('report.html')")

    assert done.stderr.splitlines()[-1] == (
        f"tersely.errors.MissingExtraError: a report's page needs {package}, "
        f'{LIBRARY_NOT_INSTALLED} "tersely[report]"'
    )


@pytest.mark.parametrize("package", ["click", "rich"])
def test_the_command_line_says_which_library_it_lacks(package) -> None:
    code = "from tersely.cli.start import main; sys.argv[1:] = ['plugins', 'list']; main()"

    done = run_without(package, code=code)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f'tersely: the command line needs {package}, {LIBRARY_NOT_INSTALLED} "tersely[cli]"\n'
    )
