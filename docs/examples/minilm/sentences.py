"""Sentences that the standard library is documented with, split by the module they are in."""

import ast
import functools
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SHORTEST, LONGEST = 30, 160
"""Characters of a sentence."""


def split(seed: int) -> tuple[list[str], list[str]]:
    """Return sentences to learn from and sentences to measure with, shuffled.

    A quarter of the library's modules is for measuring. What stands in both parts is in the first.

    Args:
        seed: which modules are for measuring, and in which order sentences come.
    """
    modules = [set(found) for found in _modules()]
    order = random.Random(seed)
    order.shuffle(modules)
    quarter = len(modules) // 4
    held_out = set().union(*modules[:quarter])
    train = set().union(*modules[quarter:])
    both = sorted(train), sorted(held_out - train)
    for part in both:
        order.shuffle(part)
    return both


@functools.cache
def _modules() -> tuple[tuple[str, ...], ...]:
    library = Path(sysconfig.get_path("stdlib"))
    return tuple(tuple(_sentences(path)) for path in sorted(library.glob("*.py")))


def _sentences(path: Path) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        docstring = ast.get_docstring(node) if isinstance(node, kinds) else None
        for paragraph in re.split(r"\n\s*\n", docstring or ""):
            for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
                if SHORTEST <= len(sentence) <= LONGEST and sentence.endswith("."):
                    yield sentence
