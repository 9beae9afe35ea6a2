"""YAML text to data with places: mappings, merge keys, anchors, and what cannot be data."""

from __future__ import annotations

import re
from collections.abc import Iterator

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tersely.document.messages.wording import show
from tersely.document.path import Path
from tersely.document.reading.positions import MAX_DEPTH, Document, Mark, Part
from tersely.document.reading.record import Reading
from tersely.document.reading.yaml_nodes import PATTERNS, TAG, compose, place
from tersely.json_value import Json

_MERGE = TAG + "merge"
_TEXT = (TAG + "str", _MERGE)
_FORMS = {kind: re.compile(pattern) for kind, (pattern, _) in PATTERNS.items()}
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


def read_yaml(text: str, *, source: str | None = None) -> Document:
    """Read one YAML document.

    Args:
        text: the whole text.
        source: the file it came from, for errors.

    Returns:
        The data, with mistakes after which reading could continue (a key given twice, a key that
        is not text, a tag without meaning) among its findings.

    Raises:
        ConfigError: the text is not YAML, is empty, or holds several documents.
    """
    reading = Reading(source)
    root = compose(text, reading)
    # Without an anchor, no node can be in several places.
    data = _Converter(reading, is_repeating="&" in text).value(root)
    return reading.document(data, _NodePlaces(root), characters=len(text))


class _Converter:
    """Turns nodes into data; holds the reading it fills, its path, and the nodes it is inside of.

    Args:
        reading: where mistakes are noted.
        is_repeating: whether a node can be in several places.
    """

    def __init__(self, reading: Reading, *, is_repeating: bool) -> None:
        self._reading = reading
        self._is_repeating = is_repeating
        self._path: list[str | int] = []
        self._open: set[int] = set()

    def value(self, node: Node) -> Json:
        """Return a node's data."""
        if len(self._path) > MAX_DEPTH:
            raise self._reading.too_deep(place(node.start_mark))
        if isinstance(node, ScalarNode):
            if self._is_repeating:
                self._identify(node, characters=len(node.value))
            return node.value if node.tag in _TEXT else self._scalar(node)
        if self._is_repeating:
            self._identify(node)
        self._begin(node)
        try:
            if isinstance(node, SequenceNode):
                self._check_tag(node, "seq")
                return self._list(node)
            if not isinstance(node, MappingNode):
                raise TypeError(f"PyYAML has a node of another kind: {node!r}")
            self._check_tag(node, "map")
            return self._mapping(node)
        finally:
            self._open.discard(id(node))

    def _list(self, node: SequenceNode) -> list[Json]:
        path, data = self._path, []
        for index, item in enumerate(node.value):
            path.append(index)
            data.append(self.value(item))
            path.pop()
        return data

    def _mapping(self, node: MappingNode) -> dict[str, Json]:
        path, data = self._path, {}
        for key, _, value_node in self.pairs(node, {}):
            path.append(key)
            data[key] = self.value(value_node)
            path.pop()
        return data

    def _identify(self, node: Node, *, characters: int = 0) -> None:
        self._reading.identify(id(node), place(node.start_mark), characters=characters)

    def _begin(self, node: Node) -> None:
        if id(node) in self._open:
            raise self._reading.refusal(
                "an alias is inside its own anchor, so the data would never end",
                mark=place(node.start_mark),
            )
        self._open.add(id(node))

    def pairs(self, node: MappingNode, known: dict[str, Node]) -> Iterator[tuple[str, Node, Node]]:
        """Yield key, its node and the value's node of what a mapping holds, merged ones last.

        Args:
            node: the mapping.
            known: keys that are there already, to which these are added, with their nodes.
        """
        inherited = frozenset(known)
        merges = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merges.append(value_node)
                continue
            key = self._key(key_node)
            if key is None or key in inherited:
                # Without a value it costs time all the same.
                self._reading.repeat(place(key_node.start_mark))
            elif _lacks_space(key_node, value_node):
                self._note_lack(key, place(key_node.start_mark))
            elif key in known:
                mark, first = place(key_node.start_mark), place(known[key].start_mark)
                self._reading.note_twice((*self._path, key), mark, first=first)
            else:
                known[key] = key_node
                yield key, key_node, value_node
        for merged in merges:
            yield from self._merged(merged, known)

    def _note_lack(self, key: str, mark: Mark) -> None:
        name, _, value = key.partition(":")
        self._reading.note(
            (*self._path, key),
            f"the key {key!r} has no value",
            hint=f"write a space after the colon: {name}: {value}",
            mark=mark,
        )

    def _merged(self, node: Node, known: dict[str, Node]) -> Iterator[tuple[str, Node, Node]]:
        for part in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(part, MappingNode):
                self._reading.note(
                    tuple(self._path),
                    "the merge key << takes a mapping or a list of mappings",
                    hint="write <<: *name with an anchor &name on a mapping",
                    mark=place(part.start_mark),
                )
                continue
            self._begin(part)
            self._reading.repeat(place(part.start_mark))
            try:
                yield from self.pairs(part, known)
            finally:
                self._open.discard(id(part))

    def _key(self, node: Node) -> str | None:
        if isinstance(node, ScalarNode):
            key = self._scalar(node)
            if isinstance(key, str):
                return key
            message = f"found the key {show(key)}, expected a string"
            hint = f"write '{node.value}' in quotes" if node.value else None
        else:
            kind = "list" if isinstance(node, SequenceNode) else "mapping"
            message, hint = f"found a {kind} as a key, expected a string", None
        self._reading.note(tuple(self._path), message, hint=hint, mark=place(node.start_mark))
        return None

    def _scalar(self, node: ScalarNode) -> Json:
        if node.tag in _TEXT:
            return node.value
        kind = node.tag.removeprefix(TAG)
        if kind not in PATTERNS:
            self._note_tag(node)
            return "?"
        if not _FORMS[kind].match(node.value):
            return self._reading.note_unreadable(
                tuple(self._path), f"the tag !!{kind} does not fit {show(node.value)}"
            )
        if kind == "null":
            return None
        if kind == "bool":
            return node.value.lower() == "true"
        return self._number(node, kind=kind)

    def _number(self, node: ScalarNode, *, kind: str) -> Json:
        text, path = str(node.value), tuple(self._path)
        if kind == "float":
            number = float(_SPECIAL.get(text.lower(), text))
            return self._reading.number(number, path, place(node.start_mark))
        try:
            number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            return self._reading.integer(number, path, place(node.start_mark))
        except ValueError:  # beyond sys.get_int_max_str_digits()
            return self._reading.note_unreadable(
                path, f"the integer has {len(text)} digits, which is too many"
            )

    def _check_tag(self, node: Node, kind: str) -> None:
        if node.tag != TAG + kind:
            self._note_tag(node)

    def _note_tag(self, node: Node) -> None:
        tag = node.tag
        spelled = f"!!{tag.removeprefix(TAG)}" if tag.startswith(TAG) else tag
        self._reading.note_unreadable(
            tuple(self._path),
            f"the tag {spelled} has no meaning here, expected plain data",
            hint="remove the tag",
            mark=place(node.start_mark),
        )


def _lacks_space(key: Node, value: Node) -> bool:
    """Tell whether ``{key:value}`` was written, which YAML reads as a key that has no value."""
    if value.value != "" or not all(
        isinstance(node, ScalarNode) and not node.style for node in (key, value)
    ):
        return False
    return bool(re.match(r"[\w.-]+:[^:/\s]", key.value))


class _NodePlaces:
    """Finds places in the nodes of a text; mutable because it keeps the keys it has looked up.

    Args:
        root: the node of the whole document, which has been converted.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self._converter = _Converter(Reading(None), is_repeating=False)
        self._held: dict[int, dict[str, tuple[Node, Node]]] = {}

    def mark(self, path: Path, part: Part) -> Mark:
        """Return the place of a key or value, or of the innermost thing around it."""
        key: Node | None = None
        node = self._root
        for step in path:
            key, inner = self._child(node, step)
            if inner is None:
                return place(node.start_mark)
            node = inner
        return place((key if part == "key" and key is not None else node).start_mark)

    def _child(self, node: Node, step: str | int) -> tuple[Node | None, Node | None]:
        if isinstance(node, SequenceNode):
            is_there = isinstance(step, int) and step < len(node.value)
            return None, node.value[step] if is_there else None
        if not isinstance(node, MappingNode):
            return None, None
        held = self._held.get(id(node))
        if held is None:
            pairs = self._converter.pairs(node, {})
            held = {key: (key_node, value_node) for key, key_node, value_node in pairs}
            self._held[id(node)] = held
        return held.get(str(step), (None, None))
