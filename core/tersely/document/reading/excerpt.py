"""The line of a text that contains a mistake, with carets under it."""

from __future__ import annotations

import re
import unicodedata

_WIDTH = 100
_BEFORE = 30
_TOKEN = re.compile(r"""\S+?(?=:(?:\s|\Z)|[,\]}]|\s|\Z)|'[^']*'|"[^"]*"|.""")
_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*\"""")


def excerpt(lines: list[str], line: int, column: int) -> tuple[str, ...]:
    """Return a line of a text and carets under the word at a column, or nothing past its end.

    Args:
        lines: the text's lines.
        line: the line, from 1.
        column: the column in characters, from 1.
    """
    if not 1 <= line <= len(lines):
        return ()
    text = "".join(char if char.isprintable() else " " for char in lines[line - 1])
    start = column - 1
    match = _QUOTED.match(text, start) or _TOKEN.match(text, start)
    length = len(match[0]) if match else 1
    if len(text) > _WIDTH:
        first = max(0, start - _BEFORE)
        head = "..." if first else ""
        start += len(head) - first
        text = head + text[first : first + _WIDTH] + ("..." if len(text) > first + _WIDTH else "")
    number = f"{line:>5}"
    marked = text[start : start + length]
    carets = "^" * max(1, _columns(marked))
    return f"{number} | {text}", f"{' ' * 5} | {' ' * _columns(text[:start])}{carets}"


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)
