"""The table of papers says what is under tests, and all of that uses public names alone."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

import tersely
from tersely import contracts

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FILES = sorted((ROOT / "tests" / "downstream" / "papers").glob("*.py"))
LONGEST = 150


def test_the_table_is_what_the_files_say():
    written = runpy.run_path(str(DOCS / "write_papers.py"))["page"]()
    page = (DOCS / "plugins" / "papers.md").read_text(encoding="utf-8")

    assert page == written, "run: python docs/write_papers.py"


def test_at_least_22_papers_are_plugins():
    page = (DOCS / "plugins" / "papers.md").read_text(encoding="utf-8")
    papers = {line.split(" | ")[0] for line in page.splitlines() if "/" in line and "| `" in line}

    assert len(papers) >= 22


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_of_a_paper_is_short_and_uses_public_names_alone(file):
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    imported = {
        (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    modules = {module for module, _ in imported}
    modules |= {
        one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names
    }
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "tersely"
    }

    assert len(text.splitlines()) < LONGEST
    assert modules <= {
        "tersely",
        "tersely.contracts",
        "torch",
        "torch.nn",
        *sys.stdlib_module_names,
        "collections.abc",
    }
    assert used <= set(tersely.__all__)
    assert {name for module, name in imported if module == "tersely.contracts"} <= set(
        contracts.__all__
    )
