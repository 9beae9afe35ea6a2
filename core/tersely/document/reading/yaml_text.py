"""YAML text to data with places: mappings, merge keys, anchors, and what cannot be data."""

from __future__ import annotations

import re

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tersely.document.messages.wording import show
from tersely.document.path import Path
from tersely.document.reading.positions import Document
from tersely.document.reading.record import Reading
from tersely.document.reading.yaml_nodes import PATTERNS, TAG, compose, place
from tersely.json_value import Json

_TEXT = (TAG + "str", TAG + "merge")
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
    data = _Converter(reading).value(root, ())
    return reading.document(data)


class _Converter:
    """Turns nodes into data; holds the reading it fills and the nodes it is inside of."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._open: set[int] = set()

    def value(self, node: Node, path: Path) -> Json:
        """Return a node's data."""
        mark = place(node.start_mark)
        if isinstance(node, ScalarNode):
            self._reading.enter(path, mark, identity=id(node), characters=len(node.value))
            return self._scalar(node, path)
        self._reading.enter(path, mark, identity=id(node))
        self._begin(node)
        try:
            if isinstance(node, SequenceNode):
                self._check_tag(node, "seq", path)
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            if not isinstance(node, MappingNode):
                raise TypeError(f"PyYAML has a node of another kind: {node!r}")
            self._check_tag(node, "map", path)
            data: dict[str, Json] = {}
            self._fill(data, node, path)
            return data
        finally:
            self._open.discard(id(node))

    def _begin(self, node: Node) -> None:
        if id(node) in self._open:
            raise self._reading.refusal(
                "an alias stands inside its own anchor, which would never end",
                mark=place(node.start_mark),
            )
        self._open.add(id(node))

    def _fill(self, data: dict[str, Json], node: MappingNode, path: Path) -> None:
        inherited = set(data)
        merges = []
        for key_node, value_node in node.value:
            mark = place(key_node.start_mark)
            if key_node.tag == TAG + "merge":
                merges.append(value_node)
                continue
            key = self._key(key_node, path)
            if key is None or key in inherited:
                # Without a value it costs time all the same.
                self._reading.repeat(mark)
                continue
            if _lacks_space(key_node, value_node):
                name, _, value = key.partition(":")
                self._reading.note(
                    (*path, key),
                    f"the key {key!r} has no value",
                    hint=f"write a space after the colon: {name}: {value}",
                    mark=mark,
                )
                continue
            if key in data:
                self._reading.note_twice((*path, key), mark)
                continue
            inner = (*path, key)
            self._reading.keys[inner] = mark
            data[key] = self.value(value_node, inner)
        for merged in merges:
            self._merge(data, merged, path)

    def _merge(self, data: dict[str, Json], node: Node, path: Path) -> None:
        for part in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(part, MappingNode):
                self._reading.note(
                    path,
                    "the merge key << takes a mapping or a list of mappings",
                    hint="write <<: *name with an anchor &name on a mapping",
                    mark=place(part.start_mark),
                )
                continue
            self._begin(part)
            self._reading.repeat(place(part.start_mark))
            try:
                self._fill(data, part, path)
            finally:
                self._open.discard(id(part))

    def _key(self, node: Node, path: Path) -> str | None:
        if isinstance(node, ScalarNode):
            key = self._scalar(node, path)
            if isinstance(key, str):
                return key
            message = f"found the key {show(key)}, expected a string"
            hint = f"write '{node.value}' in quotes" if node.value else None
        else:
            kind = "list" if isinstance(node, SequenceNode) else "mapping"
            message, hint = f"found a {kind} as a key, expected a string", None
        self._reading.note(path, message, hint=hint, mark=place(node.start_mark))
        return None

    def _scalar(self, node: ScalarNode, path: Path) -> Json:
        if node.tag in _TEXT:
            return node.value
        kind = node.tag.removeprefix(TAG)
        if kind not in PATTERNS:
            self._note_tag(node, path)
            return "?"
        if not re.match(PATTERNS[kind][0], node.value):
            return self._reading.note_unreadable(
                path, f"the tag !!{kind} does not fit {show(node.value)}"
            )
        if kind == "null":
            return None
        if kind == "bool":
            return node.value.lower() == "true"
        return self._number(node, path, kind=kind)

    def _number(self, node: ScalarNode, path: Path, *, kind: str) -> Json:
        text = str(node.value)
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

    def _check_tag(self, node: Node, kind: str, path: Path) -> None:
        if node.tag != TAG + kind:
            self._note_tag(node, path)

    def _note_tag(self, node: Node, path: Path) -> None:
        tag = node.tag
        spelled = f"!!{tag.removeprefix(TAG)}" if tag.startswith(TAG) else tag
        self._reading.note_unreadable(
            path,
            f"the tag {spelled} has no meaning here, expected plain data",
            hint="remove the tag",
            mark=place(node.start_mark),
        )


def _lacks_space(key: Node, value: Node) -> bool:
    """Tell whether ``{key:value}`` was written, which YAML reads as a key that has no value."""
    is_plain = all(isinstance(node, ScalarNode) and not node.style for node in (key, value))
    return is_plain and value.value == "" and bool(re.match(r"[\w.-]+:[^:/\s]", key.value))
