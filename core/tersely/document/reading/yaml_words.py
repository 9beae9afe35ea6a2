"""What PyYAML complains about, in words for people who write documents by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import attrs


@attrs.frozen
class Complaint:
    """What is wrong with a text that is not YAML.

    Attributes:
        message: what was found.
        hint: what to write instead, or None.
        at_opening: whether the place to show is where the unfinished thing begins.
    """

    message: str
    hint: str | None = None
    at_opening: bool = False


def complaint(
    problem: str, context: str, *, opening: int | None, before: Sequence[str] = ()
) -> Complaint:
    """Return one of PyYAML's errors in other words.

    Args:
        problem: what it says is wrong.
        context: what it was reading, or an empty string.
        opening: the line on which that begins, from 1, or None.
        before: the lines up to the place of the problem, the last of them cut off there.
    """
    if problem.startswith("mapping values are not allowed"):
        return _no_key_here(before)
    for pattern, where, answer in _ANSWERS:
        match = re.match(pattern, problem)
        if match and re.search(where, context):
            return answer(match.groups(), f"on line {opening}" if opening else "above")
    text = f"not YAML: {problem}"
    if context:
        text += f" {context}" + (f" that begins on line {opening}" if opening else "")
    return Complaint(text)


_Answer = Callable[[Sequence[str], str], Complaint]


_KEY = re.compile(r" *(?:- +)*[\w.-]+\Z")
_WORD = re.compile(r" *(?:- +)*([\w.-]+)((?: [^:]*)?)\Z")
_VALUE = re.compile(r" *(?:- +)*[\w.-]+: +[^#|>&\[{\s]")


def _no_key_here(before: Sequence[str]) -> Complaint:
    """Tell why a ':' follows no key, which is often seen from the line above it."""
    message = "found ':' where no key is allowed"
    plain = Complaint(message, "quote text that contains ': ', or check the indentation")
    numbered = [(number, line) for number, line in enumerate(before[:-1], start=1) if line.strip()]
    if not numbered or not _KEY.match(before[-1]):
        return plain
    number, above = numbered[-1]
    if _indentation(above) >= _indentation(before[-1]):
        return plain
    word = _WORD.match(above.rstrip(" "))
    if word:
        hint = f"write '{word[1]}:{word[2]}' there, or check the indentation"
        return Complaint(f"{message}, since line {number} has no ':' after {word[1]!r}", hint)
    if _VALUE.match(above):
        hint = f"give both lines the same indentation, or quote the text of line {number}"
        return Complaint(f"{message}: the key on line {number} has a value already", hint)
    return plain


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _unclosed(what: str, mark: str) -> _Answer:
    def answer(found: Sequence[str], opening: str) -> Complaint:
        if "stream end" in found[0]:
            message = f"the {what} that begins here is not closed"
            return Complaint(message, f"end it with '{mark}'", at_opening=True)
        return Complaint(
            f"found {found[0]} inside the {what} that begins {opening}, expected ',' or '{mark}'",
            f"put a comma between the items, or close the {what} with '{mark}'",
        )

    return answer


def _misplaced(what: str) -> _Answer:
    return lambda found, opening: Complaint(
        f"this line fits neither into the {what} that begins {opening} nor after it",
        "give lines that belong together the same indentation",
    )


def _reserved(found: Sequence[str], opening: str) -> Complaint:
    if found[0] == r"'\t'":
        return Complaint("found a tab where YAML expects spaces", "indent with spaces")
    return Complaint(f"text cannot begin with {found[0]} in YAML", "put it in quotes")


_ANSWERS: tuple[tuple[str, str, _Answer], ...] = (
    (
        r"could not find expected ':'",
        "",
        lambda found, opening: Complaint(
            "found text without ': ' after it among the keys of a mapping",
            "write 'key: value', or check the indentation",
            at_opening=True,
        ),
    ),
    (r"expected ',' or '\]', but got ('?.*?'?)$", "sequence", _unclosed("list", "]")),
    (r"expected ',' or '\}', but got ('?.*?'?)$", "mapping", _unclosed("mapping", "}")),
    (r"expected <block end>, but found", "mapping", _misplaced("mapping")),
    (r"expected <block end>, but found", "collection", _misplaced("list")),
    (
        r"found unexpected end of stream",
        "quoted scalar",
        lambda found, opening: Complaint(
            "the quote that begins here is not closed",
            "write the same quote where the text ends",
            at_opening=True,
        ),
    ),
    (
        r"expected alphabetic or numeric character",
        "alias|anchor",
        lambda found, opening: Complaint(
            "text that begins with '*' or '&' refers to other parts of the file",
            "put a pattern in quotes, as in '.*conv'",
        ),
    ),
    (
        r"found undefined alias '?(.*?)'?$",
        "",
        lambda found, opening: Complaint(
            f"the alias *{found[0]} has no anchor &{found[0]} above it",
            "put text that begins with '*' in quotes",
        ),
    ),
    (r"found character (.*) that cannot start any token", "", _reserved),
    (
        r"found unknown escape character (.*)",
        "",
        lambda found, opening: Complaint(
            f"a backslash before {found[0]} has no meaning in double quotes",
            "write patterns in single quotes, as in '\\d+'",
        ),
    ),
    (
        r"sequence entries are not allowed",
        "",
        lambda found, opening: Complaint(
            "found '- ' where no list item is allowed", "begin the item on a line of its own"
        ),
    ),
    (
        r"expected the node content, but found (.*)",
        "",
        lambda found, opening: Complaint(
            f"found {found[0]} where a value is expected", "put text in quotes"
        ),
    ),
    (
        r"expected a comment or a line break|expected chomping or indentation",
        "",
        lambda found, opening: Complaint(
            "text that begins with '|' or '>' starts a block of lines", "put it in quotes"
        ),
    ),
    (
        r"expected '<document start>'",
        "",
        lambda found, opening: Complaint(
            "this line is outside of the document above it",
            "check the indentation of the first lines",
        ),
    ),
)
