"""One mistake in a document: where it is, what is wrong, and what to write instead."""

from __future__ import annotations

import attrs


@attrs.frozen
class Problem:
    """One mistake in a document.

    Attributes:
        path: where it is in the data, as in ``pruning.config_list[0].sparse_ratio``; empty for
            the root.
        message: what was found and what was expected.
        hint: what to write instead, or None.
        line: 1-based line of the key or value in the file, or None for Python data.
        column: 1-based column of the key or value in the file, or None for Python data.
    """

    path: str
    message: str
    hint: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = f"{self.line}:{self.column}: " if self.line is not None else ""
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{path}{self.message}{hint}"
