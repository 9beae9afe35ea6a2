"""The place of every key and value of a document in its file, and problems with places."""

from __future__ import annotations

from operator import itemgetter
from typing import Literal, NamedTuple, Protocol

import attrs

from tersely.document.path import Path, spell_path
from tersely.document.reading.ordering import Order
from tersely.errors import Fix, Problem
from tersely.json_value import Json

Part = Literal["key", "value"]

MAX_DEPTH = 100
"""How deeply mappings and lists may be nested; a recipe needs about eight levels."""

MAX_REPEATED = 100_000
"""How many values may come from repeating others; aliases of aliases get there in a few lines."""

MAX_REPEATED_TEXT = 10_000_000
"""How many characters the strings among them may have together."""

LARGEST = 2**1023
"""The largest integer that is still a number to everyone; floats end soon after."""


class Mark(NamedTuple):
    """A place in a text; no attrs class, because a document makes one for each key and value.

    Attributes:
        line: the line, from 1.
        column: the column in characters, from 1.
    """

    line: int
    column: int


@attrs.frozen
class Finding:
    """A mistake before its place in the file is looked up.

    Attributes:
        path: where it is in the data.
        message: what was found and what was expected.
        hint: what to write instead, or None.
        part: whether the key or the value at ``path`` is wrong.
        mark: the place, where ``path`` cannot tell it: the second of two equal keys.
        fix: the one right answer, or None.
    """

    path: Path
    message: str
    hint: str | None = None
    part: Part = "value"
    mark: Mark | None = None
    fix: Fix | None = attrs.field(default=None, eq=False)

    def moved(self, old: Path, new: Path) -> Finding:
        """Return the same mistake at another place of the same form.

        Args:
            old: the beginning of ``path`` that becomes ``new``.
            new: its replacement.
        """

        def there(path: Path) -> Path:
            return (*new, *path[len(old) :]) if path[: len(old)] == old else path

        fix = self.fix
        if fix is not None:
            fix = attrs.evolve(fix, path=there(fix.path), to=there(fix.to))
        return attrs.evolve(self, path=there(self.path), fix=fix)


class Places(Protocol):
    """The places of keys and values in a text; looked up when an error or a plan needs them."""

    def mark(self, path: Path, part: Part) -> Mark | None:
        """Return the place of a key or value, or of the innermost thing around it.

        Args:
            path: where it is in the data.
            part: whether the key or the value is meant.
        """


@attrs.frozen(eq=False)
class Document:
    """Plain JSON data and where it came from.

    Attributes:
        data: mappings, lists, strings, numbers, booleans and None.
        places: the places of its keys and values; None for Python data.
        findings: mistakes made in writing, such as a key given twice.
        opaque: paths of values that could not be read, which the findings report; the value that
            replaces one is not reported again.
        source: the file as it was named, or None for Python data.
        characters: about how long its text is, or would be.
    """

    data: Json
    places: Places | None = None
    findings: tuple[Finding, ...] = ()
    opaque: frozenset[Path] = frozenset()
    source: str | None = None
    characters: int = 0

    def mark(self, path: Path, part: Part = "value") -> Mark | None:
        """Return the place of a key or value, or of the innermost thing around it.

        Args:
            path: where it is in the data.
            part: whether the key or the value is meant.

        Returns:
            The place, or None for Python data.
        """
        return None if self.places is None else self.places.mark(path, part)

    def problems(self, findings: list[Finding]) -> tuple[Problem, ...]:
        """Return mistakes with their places, in document order and each once.

        Args:
            findings: mistakes in any order; those made in writing are added to them.
        """
        if not findings and not self.findings:
            return ()
        readable = [
            finding
            for finding in findings
            if finding.part == "key" or not self._is_opaque(finding.path)
        ]
        placed: dict[tuple[int, int], list[tuple[Path, Problem]]] = {}
        for finding in dict.fromkeys((*self.findings, *readable)):
            mark = finding.mark or self.mark(finding.path, finding.part)
            line, column = mark or (None, None)
            problem = Problem(
                spell_path(finding.path), finding.message, finding.hint, line, column, finding.fix
            )
            placed.setdefault((line or 0, column or 0), []).append((finding.path, problem))
        order = Order(self.data)
        return tuple(
            problem
            for _, together in sorted(placed.items(), key=itemgetter(0))
            for _, problem in order.sorted(together)
        )

    def _is_opaque(self, path: Path) -> bool:
        if not self.opaque:
            return False
        return any(path[:length] in self.opaque for length in range(len(path) + 1))
