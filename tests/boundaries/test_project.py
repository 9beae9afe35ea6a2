"""The project's own files agree with each other."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASING.md", "CODE_OF_CONDUCT.md")
CHANGES = runpy.run_path(str(ROOT / "changes" / "collect.py"))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_pre_commit_has_the_ruff_that_is_pinned():
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    (pinned,) = re.findall(r"^(ruff==.*)$", text("constraints.txt"), flags=re.MULTILINE)

    assert [hook["additional_dependencies"] for hook in hooks] == [[pinned]] * 2


def test_the_forge_runs_what_everybody_runs():
    (job,) = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"].values()

    assert job["steps"][-1] == {"run": ".ci/run"}
    versions = job["steps"][1]["with"]["python-version"].split()
    assert (
        sorted(versions)
        == re.findall(r"3\.1\d", text(".ci/run").partition("for version in")[2])[:4]
    )


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    (version,) = re.findall(r'^version = "(.*)"$', text("pyproject.toml"), flags=re.MULTILINE)

    assert (citation["version"], citation["license"]) == (version, "MIT")


@pytest.mark.parametrize("page", [*PAGES, "changes/README.md", "tests/downstream/README.md"])
def test_every_link_of_a_page_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text(page))
    folder = ROOT / "docs" if page == "changes/README.md" else (ROOT / page).parent

    assert [link for link in links if not (folder / link).exists()] == []


def test_every_note_is_a_list():
    lines = [
        line
        for note in CHANGES["notes"](ROOT / "changes")
        for line in note.read_text(encoding="utf-8").splitlines()
    ]

    assert [line for line in lines if not line.startswith(("* ", "  "))] == []


def test_notes_are_added_to_a_release_that_has_begun():
    before = "# Changelog\n\n## 0.2.0\n\n* One.\n\n## 0.1.0\n\n* Old.\n"

    assert CHANGES["released"](before, "0.2.0", ["* Two.\n", "* Three,\n  long.\n"]) == (
        "# Changelog\n\n## 0.2.0\n\n* One.\n* Two.\n* Three,\n  long.\n\n## 0.1.0\n\n* Old.\n"
    )


def test_notes_begin_a_release():
    before = "# Changelog\n\n## 0.1.0\n\n* Old.\n"

    assert CHANGES["released"](before, "0.2.0", ["* New.\n"]) == (
        "# Changelog\n\n## 0.2.0\n\n* New.\n\n## 0.1.0\n\n* Old.\n"
    )
