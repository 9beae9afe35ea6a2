"""How the problems of documents are printed: for people, for programs and for GitHub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import attrs

from tersely.document.reading.excerpt import excerpt
from tersely.document.reading.source import read_text
from tersely.document.schemas.schema import Kind
from tersely.errors import ConfigError, Problem

Format: TypeAlias = Literal["text", "json", "github"]


@attrs.frozen
class Checked:
    """One file and what is wrong with it.

    Attributes:
        file: the file as it was named.
        kind: what it is: recipe, job, or the method of a config list; None when unreadable.
        problems: its problems, in document order.
    """

    file: str
    kind: Kind | None
    problems: tuple[Problem, ...]

    def lines(self) -> list[str]:
        """Return the lines of the file, or none where it cannot be read."""
        try:
            return read_text(self.file).split("\n")
        except ConfigError:
            return []


def render(checked: Sequence[Checked], output: Format) -> Iterator[str]:
    """Yield the lines to print.

    Args:
        checked: the files, in the order to print them.
        output: ``text``, ``json`` or ``github``.
    """
    if output == "json":
        yield json.dumps(
            {
                "valid": not any(each.problems for each in checked),
                "files": [attrs.asdict(each) for each in checked],
            },
            indent=2,
            ensure_ascii=False,
        )
        return
    for each in checked:
        if output == "github":
            yield from (_annotation(each.file, problem) for problem in each.problems)
        else:
            yield from _shown(each)
        if output == "text" and not each.problems:
            yield f"{each.file}: valid ({_KINDS.get(each.kind or '', each.kind)})"
    if output == "text":
        yield from _summary(checked)


def explain(error: ConfigError) -> Iterator[str]:
    """Yield lines that show the problems of a document with the lines that contain them.

    Args:
        error: what a command failed with.
    """
    if error.source is None:
        yield f"tersely: {error}"
        return
    count = len(error.problems)
    yield f"tersely: {error.source} has {count} problem{'' if count == 1 else 's'}:"
    yield from _shown(Checked(error.source, None, error.problems))


def _shown(checked: Checked) -> Iterator[str]:
    lines = checked.lines() if checked.problems else []
    for problem in checked.problems[:_SHOWN]:
        yield describe_problem(checked.file, problem)
        if problem.line is not None and problem.column is not None:
            yield from excerpt(lines, problem.line, problem.column)
    if len(checked.problems) > _SHOWN:
        more = len(checked.problems) - _SHOWN
        yield f"{checked.file}: ... and {more} more; --format json lists them all"


_SHOWN = 50  # a longer list is not useful at once

_KINDS = {
    "pruning": "pruning config list",
    "quantization": "quantization config list",
    "distillation": "distillation config list",
}


def describe_problem(file: str, problem: Problem) -> str:
    """Return one problem as ``FILE:LINE:COLUMN: path: message (hint)``.

    Args:
        file: the file as it was named.
        problem: what is wrong with it.
    """
    place = f"{file}:{problem.line}:{problem.column}" if problem.line is not None else file
    return f"{place}: {_sentence(problem)}"


def _sentence(problem: Problem) -> str:
    path = f"{problem.path}: " if problem.path else ""
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{path}{problem.message}{hint}"


def _annotation(file: str, problem: Problem) -> str:
    # The workflow command of GitHub Actions; its own characters have to be escaped.
    place = f"file={_escape(file, in_property=True)}"
    if problem.line is not None:
        place += f",line={problem.line},col={problem.column}"
    return f"::error {place},title=tersely::{_escape(_sentence(problem))}"


def _escape(text: str, *, in_property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text


def _summary(checked: Sequence[Checked]) -> Iterator[str]:
    count = sum(len(each.problems) for each in checked)
    if count:
        wrong = sum(bool(each.problems) for each in checked)
        yield (
            f"{count} problem{'' if count == 1 else 's'} in {wrong} of {len(checked)} "
            f"file{'' if len(checked) == 1 else 's'}"
        )
