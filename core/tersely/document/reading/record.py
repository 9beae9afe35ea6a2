"""What the three readers share: the record they fill while they turn a text or object into data."""

from __future__ import annotations

import math

from tersely.document.messages.wording import show
from tersely.document.path import Path
from tersely.document.reading.positions import (
    LARGEST,
    MAX_DEPTH,
    MAX_REPEATED,
    MAX_REPEATED_TEXT,
    Document,
    Finding,
    Mark,
    Places,
)
from tersely.errors import ConfigError, Problem
from tersely.json_value import Json


class Reading:
    """The mistakes found so far; mutable because a document is read value by value.

    Args:
        source: the file as it was named, or None for Python data.
    """

    def __init__(self, source: str | None) -> None:
        self.source = source
        self.findings: list[Finding] = []
        self.opaque: set[Path] = set()
        self._seen: set[int] = set()
        self._repeated = 0
        self._repeated_text = 0

    def note(
        self, path: Path, message: str, *, hint: str | None = None, mark: Mark | None = None
    ) -> None:
        """Note a mistake after which reading continues."""
        self.findings.append(Finding(path, message, hint, "value", mark))

    def note_unreadable(
        self, path: Path, message: str, *, hint: str | None = None, mark: Mark | None = None
    ) -> str:
        """Note a value that cannot be read, and return its replacement."""
        self.note(path, message, hint=hint, mark=mark)
        self.opaque.add(path)
        return "?"

    def number(self, value: float, path: Path, mark: Mark | None) -> float | str:
        """Return a number, or note that it is infinite or not a number at all."""
        if math.isfinite(value):
            return value
        return self.note_unreadable(
            path, f"found {show(value)}, expected a finite number", mark=mark
        )

    def note_twice(self, path: Path, mark: Mark, *, first: Mark) -> None:
        """Note that the key at ``path`` is given at ``first``, and again at ``mark``."""
        self.note(
            path,
            f"the key {path[-1]!r} is given twice, first on line {first.line}",
            hint="keep one of them",
            mark=mark,
        )

    def integer(self, value: int, path: Path, mark: Mark | None) -> int | str:
        """Return an integer, or note that it is beyond all that numbers are used for."""
        if abs(value) <= LARGEST:
            return value
        return self.note_unreadable(
            path, "found a very large integer, expected at most 307 digits", mark=mark
        )

    def too_deep(self, mark: Mark | None) -> ConfigError:
        """Return the error for a value inside more than `MAX_DEPTH` mappings and lists."""
        return self.refusal(
            f"mappings and lists are nested more than {MAX_DEPTH} levels deep", mark=mark
        )

    def identify(self, identity: int, mark: Mark | None, *, characters: int = 0) -> None:
        """Count a value as a repetition if it was read already.

        Args:
            identity: what is the same for a value that is only repeated.
            mark: where it is in the text, or None for Python data.
            characters: the length of a string.

        Raises:
            ConfigError: the document repeats itself too often to be meant.
        """
        if identity in self._seen:
            self.repeat(mark, characters=characters)
        self._seen.add(identity)

    def repeat(self, mark: Mark | None, *, characters: int = 0) -> None:
        """Count something that was read already.

        Args:
            mark: where it is in the text, or None for Python data.
            characters: the length of a string.

        Raises:
            ConfigError: the document repeats itself too often to be meant.
        """
        self._repeated += 1
        self._repeated_text += characters
        if self._repeated > MAX_REPEATED:
            raise self.refusal(
                f"more than {MAX_REPEATED} values only repeat others",
                hint="aliases of aliases grow fast: write the values out",
                mark=mark,
            )
        if self._repeated_text > MAX_REPEATED_TEXT:
            raise self.refusal(
                f"strings that only repeat others have more than {MAX_REPEATED_TEXT} characters",
                hint="long strings and many aliases of them grow fast: write shorter ones",
                mark=mark,
            )

    def refusal(
        self, message: str, *, hint: str | None = None, mark: Mark | None = None
    ) -> ConfigError:
        """Return the error for a mistake after which nothing more can be read."""
        line, column = (mark.line, mark.column) if mark else (None, None)
        return ConfigError([Problem("", message, hint, line, column)], source=self.source)

    def document(self, data: Json, places: Places | None = None, *, characters: int) -> Document:
        """Return what was read.

        Args:
            data: plain JSON data.
            places: its places in the text, or None for Python data.
            characters: about how long its text is, or would be.
        """
        return Document(
            data,
            places,
            tuple(self.findings),
            frozenset(self.opaque),
            self.source,
            characters,
        )
