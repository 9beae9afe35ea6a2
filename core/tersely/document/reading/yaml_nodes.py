"""YAML text to PyYAML's nodes, which keep their places, by the core schema of YAML 1.2."""

from __future__ import annotations

import contextlib
import re
from typing import Any, cast

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from tersely.document.reading.positions import Mark
from tersely.document.reading.record import Reading
from tersely.document.reading.yaml_words import complaint
from tersely.errors import ConfigError

TAG = "tag:yaml.org,2002:"
PATTERNS: dict[str, tuple[str, str]] = {
    "null": (r"(?:null|Null|NULL|~|)\Z", "nN~\0"),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF"),
    "int": (r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z", "-+0123456789"),
    "float": (
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z",
        "-+.0123456789",
    ),
    "merge": (r"<<\Z", "<"),
}


# PyYAML builds its loaders by inheritance, and its resolver by class attributes.
class _CoreSchemaResolver(BaseResolver):
    """Plain scalars mean what YAML 1.2 says: ``yes`` is text, ``1e-3`` a number, ``2:4`` text."""

    def resolve(self, kind: type[Node], value: str | None, implicit: Any) -> str:
        """Return a node's tag; most scalars begin with what only text begins with."""
        if kind is SequenceNode:
            return self.DEFAULT_SEQUENCE_TAG
        if kind is MappingNode:
            return self.DEFAULT_MAPPING_TAG
        text = value or ""
        for tag, form in self.yaml_implicit_resolvers.get(text[:1], ()) if implicit[0] else ():
            if form.match(text):
                return str(tag)
        return self.DEFAULT_SCALAR_TAG


for _name, (_pattern, _first) in PATTERNS.items():
    # PyYAML looks an empty scalar up under the empty string.
    _CoreSchemaResolver.add_implicit_resolver(
        TAG + _name, re.compile(_pattern), ["" if char == "\0" else char for char in _first]
    )


class _Loader(Reader, Scanner, Parser, Composer, _CoreSchemaResolver):
    """PyYAML's text-to-nodes half; nodes keep their places, constructed objects do not."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _CoreSchemaResolver.__init__(self)


def _compiled_loader() -> Any:
    try:
        from yaml._yaml import CParser  # PyYAML may have been built without libyaml
    except ImportError:
        return None

    class CompiledLoader(CParser, _CoreSchemaResolver):
        """The same half, by libyaml."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _CoreSchemaResolver.__init__(self)

    return CompiledLoader


_CompiledLoader = _compiled_loader()


def compose(text: str, reading: Reading) -> Node:
    """Return the root node of the one document in a text.

    Args:
        text: the whole text.
        reading: where it comes from.

    Raises:
        ConfigError: the text is not YAML, is empty, or holds several documents.
    """
    try:
        root = _root(text)
    except ReaderError as error:
        raise _unreadable(error, text, reading) from error
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text, reading) from error
    except RecursionError as error:
        raise reading.refusal("mappings and lists are nested too deeply") from error
    if root is None:
        raise reading.refusal("the file is empty, expected a document", mark=Mark(1, 1))
    return root


def _root(text: str) -> Node | None:
    if _CompiledLoader is not None and _is_ordinary(text):
        # Twenty times as fast. Its errors read otherwise, so those are left to the other one.
        with contextlib.suppress(yaml.YAMLError):
            return cast("Node | None", _CompiledLoader(text).get_single_node())
    return _Loader(text).get_single_node()


def _is_ordinary(text: str) -> bool:
    """Tell whether both loaders read a text alike, down to the places of empty values.

    They do not where there are tabs, directives, tags, explicit keys, or empty values in braces.
    """
    if not text.isascii() or not _ORDINARY.fullmatch(text) or _is_odd(text):
        return False
    depth = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:  # the compiled one has no limit but the stack's
            return False
    return True


def _is_odd(text: str) -> bool:
    # A pattern for each is ten times as fast as one for all: each looks for its first character.
    return (
        any(sign in text for sign in "!?")
        or text.startswith(_ODD_STARTS)
        or any(f"\n{start}" in text for start in _ODD_STARTS)
        or any(pattern.search(text) for pattern in _ODD)
    )


_DEEPEST = 50
_ORDINARY = re.compile(r"[ -~\n]*")
_ODD_STARTS = ("%", "---", " " * 400)
"""How no line may begin."""
_ODD = (
    re.compile(r":(?:[ \n]|#[^\n]*\n)*[]},]"),
    re.compile(r"[|>][-+0-9]*#"),
    re.compile(r"(?:[-:] +){10}"),
)
_BRACKETS = re.compile(r"[][{}]")


def _unreadable(error: ReaderError, text: str, reading: Reading) -> ConfigError:
    before = text[: error.position]
    mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
    code = f"{ord(text[error.position]):04X}"
    return reading.refusal(
        f"found the character U+{code}, which YAML does not allow",
        hint=f'remove it, or write it as "\\u{code}" in double quotes',
        mark=mark,
    )


def _not_yaml(error: yaml.MarkedYAMLError, text: str, reading: Reading) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    if error.context == "expected a single document in the stream":
        return reading.refusal(
            "a second document starts here, expected one document in a file",
            hint="remove the line '---' or split the file",
            mark=place(mark) if mark is not None else None,
        )
    opening = error.context_mark
    said = complaint(
        error.problem or "not understood",
        error.context or "",
        opening=opening.line + 1 if opening is not None else None,
        before=_lines_before(mark, text) if mark is not None else (),
    )
    if said.at_opening and opening is not None:
        mark = opening
    return reading.refusal(
        said.message, hint=said.hint, mark=place(mark) if mark is not None else None
    )


def _lines_before(mark: yaml.Mark, text: str) -> list[str]:
    lines = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text)[: mark.line + 1]  # as PyYAML counts them
    return [*lines[:-1], lines[-1][: mark.column]]


def place(mark: yaml.Mark) -> Mark:
    """Return the place of one of PyYAML's marks, which count from 0."""
    # Without Mark's own __new__, which takes longer than everything else here.
    return tuple.__new__(Mark, (mark.line + 1, mark.column + 1))
