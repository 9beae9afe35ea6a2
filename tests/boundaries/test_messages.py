"""What two test files compare of a message stands in the table of messages."""

import ast
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import messages
import pytest

TESTS = Path(__file__).parents[1]
WORDS = 5
"""So many words in a row are a part of a message; fewer may be the same by chance."""
OUTSIDE = {
    "boundaries",  # quotes the source
    "downstream",  # packages of their own, as users write them
    "expected",  # the table itself
    "thirdparty",
}


def _texts(tree: ast.AST) -> Iterator[str]:
    """The strings of a file and the pieces of its f-strings, without docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def _parts(tree: ast.AST) -> set[tuple[str, ...]]:
    """Every few words in a row that a string of a file has; escapes of patterns are left out."""
    rows = (re.findall(r"[\w'-]+", text.replace("\\", "")) for text in _texts(tree))
    return {
        tuple(row[start : start + WORDS]) for row in rows for start in range(len(row) - WORDS + 1)
    }


def _compared_twice(said: set[tuple[str, ...]], files: dict[str, ast.AST]) -> dict[str, list[str]]:
    """Parts of what the project says -> the test files that have them, where these are several."""
    found = defaultdict(list)
    for path, tree in files.items():
        for part in _parts(tree) & said:
            found[" ".join(part)].append(path)
    return {part: paths for part, paths in sorted(found.items()) if len(paths) > 1}


@pytest.fixture(scope="module")
def tests() -> dict[str, ast.AST]:
    """The files that the table is for, by their paths."""
    return {
        path.as_posix(): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(TESTS.rglob("*.py"))
        if (path := file.relative_to(TESTS)).parts[0] not in OUTSIDE
    }


def test_the_same_words_in_two_files_are_found_also_in_patterns_and_f_strings():
    said = _parts(ast.parse('error = f"{name}: please call session.compress() before {step}()"'))
    files = {
        "one": ast.parse('assert text == f"fc: please call session.compress() before {step}()"'),
        "two": ast.parse(r'raises(match="please call session\\.compress\\(\\) before")'),
        "prose": ast.parse('"""Please call session.compress() before."""'),
        "few words": ast.parse('assert "call session.compress() before" in text'),
        "other words": ast.parse('assert text == "please call session.compress() first"'),
    }

    assert _compared_twice(said, files) == {"please call session compress before": ["one", "two"]}


def test_no_two_files_compare_the_same_part_of_a_message_by_themselves(core, plugins, tests):
    """What ``tests/expected/messages`` holds is written once and imported from there."""
    said = set().union(*(_parts(source.tree) for source in (*core, *plugins)))
    assert _compared_twice(said, tests) == {}


def test_every_message_of_the_table_is_compared(tests):
    held = {
        f"{module.name}.{name}"
        for module in pkgutil.iter_modules(messages.__path__, "messages.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if not name.startswith("_") and (isinstance(value, str) or callable(value))
    }
    imported = {
        f"{node.module}.{alias.name}"
        for tree in tests.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("messages.")
        for alias in node.names
    }
    assert sorted(held ^ imported) == []
