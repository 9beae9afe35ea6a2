"""The source files under test, parsed once."""

import ast
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Source:
    """One Python file.

    Attributes:
        path: relative to the repository root, with forward slashes.
        module: its dotted name, as in ``tersely.cli.main``.
        text: what it says.
        tree: its syntax tree.
    """

    path: str
    module: str
    text: str
    tree: ast.Module


def read(file: Path, *, top: Path) -> Source:
    """Parse one file.

    Args:
        file: the file.
        top: the folder its dotted name starts in.
    """
    parts = file.relative_to(top).with_suffix("").parts
    text = file.read_text(encoding="utf-8")
    return Source(
        path=file.relative_to(ROOT).as_posix(),
        module=".".join(parts[:-1] if parts[-1] == "__init__" else parts),
        text=text,
        tree=ast.parse(text, filename=str(file)),
    )


@pytest.fixture(scope="session")
def core() -> tuple[Source, ...]:
    """Every module of the core."""
    top = ROOT / "core"
    return tuple(read(file, top=top) for file in sorted(top.rglob("*.py")))


@pytest.fixture(scope="session")
def plugins() -> tuple[Source, ...]:
    """Every module of the official families."""
    return tuple(
        read(file, top=top)
        for top in sorted((ROOT / "plugins").glob("*/src"))
        for file in sorted(top.rglob("*.py"))
    )


@pytest.fixture(scope="session")
def outsiders() -> tuple[Source, ...]:
    """Every module, tests included, of the packages under tests/thirdparty."""
    top = ROOT / "tests" / "thirdparty"
    return tuple(read(file, top=top) for file in sorted(top.rglob("*.py")))
