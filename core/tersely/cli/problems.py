"""How the problems of documents are printed: for people, for programs and for GitHub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import attrs

from tersely.errors import Problem

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
    kind: str | None
    problems: tuple[Problem, ...]


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
        shown = each.problems[:_SHOWN] if output == "text" else each.problems
        for problem in shown:
            yield (
                _annotation(each.file, problem) if output == "github" else _line(each.file, problem)
            )
        if len(shown) < len(each.problems):
            more = len(each.problems) - len(shown)
            yield f"{each.file}: ... and {more} more; --format json lists them all"
        if output == "text" and not each.problems:
            yield f"{each.file}: valid ({_KINDS.get(each.kind or '', each.kind)})"
    if output == "text":
        yield from _summary(checked)


_SHOWN = 50  # who reads more than that corrects some and comes back

_KINDS = {
    "pruning": "pruning config list",
    "quantization": "quantization config list",
    "distillation": "distillation config list",
}


def _line(file: str, problem: Problem) -> str:
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
