"""Writes the one right answer to a mistake into the text of a document, and nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import attrs
import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tersely.document.path import Path
from tersely.document.reading.json_text import read_json
from tersely.document.reading.record import Reading
from tersely.document.reading.yaml_nodes import compose
from tersely.document.reading.yaml_text import read_yaml
from tersely.errors import ConfigError, Fix
from tersely.json_value import Json

_Span: TypeAlias = tuple[int, int]


def fix_text(text: str, fixes: Sequence[Fix], *, is_json: bool) -> tuple[str, tuple[Fix, ...]]:
    """Return a document's text with mistakes mended, and which of them were.

    Comments, order and layout stay. A fix is left out where the text could not be changed without
    changing anything else: a value that an alias repeats, say, or a block that would lose its
    only key.

    Args:
        text: the whole text, which can be read.
        fixes: what to correct, in document order.
        is_json: whether the text is JSON, not YAML.
    """
    read = read_json if is_json else read_yaml
    data = read(text).data
    done = []
    wanted = Counter(fix.to for fix in fixes)
    # Later ones first, so that the places of the earlier ones stay; what two keys claim is open.
    for fix in reversed([fix for fix in fixes if wanted[fix.to] == 1]):
        expected = _mended(data, fix)
        for changed in _edits(text, fix, is_json=is_json):
            try:
                after = read(changed)
            except ConfigError:
                continue
            if not after.findings and _is_same(after.data, expected):
                text, data = changed, after.data
                done.append(fix)
                break
    return text, tuple(reversed(done))


def _is_same(one: Json, other: Json) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _mended(data: Json, fix: Fix) -> Json:
    """Return the data that the text has to amount to when a fix is made."""
    copy = json.loads(json.dumps(data))
    holder = _at(copy, fix.path[:-1])
    key = fix.path[-1]
    value = holder[key] if fix.keeps_value else fix.value
    if fix.to == fix.path:
        holder[key] = value
        return copy
    target = _at(copy, fix.to[:-1])
    del holder[key]
    target[fix.to[-1]] = value
    return copy


def _at(data: Json, path: Path) -> Json:
    for part in path:
        data = data[part]
    return data


@attrs.frozen
class _Item:
    """The positions of a value and its key in a text.

    Attributes:
        holder: the mapping or list around it.
        node: the value.
        key: first and last index of the key; None in a list.
        value: first and last index of the value.
        follows: the index in the mapping.
    """

    holder: Node
    node: Node
    key: _Span | None
    value: _Span
    follows: int


def _edits(text: str, fix: Fix, *, is_json: bool) -> Iterator[str]:
    """Yield texts in which a fix may have been made; the caller tells whether it was."""
    root = compose(text, Reading(None))
    item = _find(text, root, fix.path)
    if item is None:
        return
    key = text[slice(*item.key)] if item.key else ""
    if fix.to != fix.path:
        key = _respelt(key, str(fix.to[-1]), is_json=is_json)
    value = text[slice(*item.value)] if fix.keeps_value else _written(fix.value, is_json=is_json)
    if fix.to[:-1] != fix.path[:-1]:
        if not is_json:
            yield from _moved(text, root, fix, item=item, key=key, value=value)
        return
    start, end = item.value
    changed = text[:start] + value + text[end:]
    if item.key is not None:
        changed = changed[: item.key[0]] + key + changed[item.key[1] :]
    yield changed


def _find(text: str, root: Node, path: Path) -> _Item | None:
    node, item = root, None
    for part in path:
        if isinstance(node, SequenceNode) and isinstance(part, int):
            value = node.value[part]
            item = _Item(node, value, None, _span(text, value), part)
        elif isinstance(node, MappingNode):
            found = [
                index
                for index, (key, _) in enumerate(node.value)
                if isinstance(key, ScalarNode) and key.value == part
            ]
            if len(found) != 1:
                return None
            key, value = node.value[found[0]]
            item = _Item(node, value, _span(text, key), _span(text, value), found[0])
        else:
            return None
        node = value
    return item


def _span(text: str, node: Node) -> _Span:
    start, end = node.start_mark.index, node.end_mark.index
    # A block ends where the next token begins; what is in between belongs to neither.
    return start, start + len(_BETWEEN.sub("", text[start:end]))


_BETWEEN = re.compile(r"(?:\s|(?:^|(?<=\s))#[^\n]*(?:\n|\Z))*\Z")


def _respelt(written: str, key: str, *, is_json: bool) -> str:
    if is_json or written.startswith('"'):
        return json.dumps(key)
    return f"'{key}'" if written.startswith("'") else key


def _written(value: object, *, is_json: bool) -> str:
    if is_json:
        return json.dumps(value)
    dumped: str = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True
    )
    return dumped.removesuffix("\n").removesuffix("\n...")


def _moved(text: str, root: Node, fix: Fix, *, item: _Item, key: str, value: str) -> Iterator[str]:
    """Yield the text with a key moved outwards, to the beginning of a mapping around it."""
    around = _find(text, root, fix.to[:-1])
    target = root if around is None else around.node
    if item.key is None or not isinstance(target, MappingNode) or target.flow_style:
        return
    if not isinstance(item.holder, MappingNode) or item.holder.flow_style:
        return
    if len(item.holder.value) == 1:
        return
    place = target.value[0][0].start_mark
    indent = " " * place.column
    shift = place.column - item.holder.value[item.follows][0].start_mark.column
    lines = value.split("\n")
    moved = [f"{key}: {lines[0]}" if not _is_block(text, item) else f"{key}:"]
    if _is_block(text, item):
        first = item.value[0] - (text.rfind("\n", 0, item.value[0]) + 1)
        lines[0] = " " * first + lines[0]
    else:
        lines = lines[1:]
    moved += [_shifted(line, shift) for line in lines]
    start, end = _whole(text, item)
    without = text[:start] + text[end:]
    yield without[: place.index] + "\n".join([*moved, ""]) + indent + without[place.index :]


def _is_block(text: str, item: _Item) -> bool:
    return item.key is not None and "\n" in text[item.key[1] : item.value[0]]


def _shifted(line: str, shift: int) -> str:
    return " " * shift + line if shift >= 0 else line[min(-shift, len(line) - len(line.lstrip())) :]


def _whole(text: str, item: _Item) -> _Span:
    """Return what goes with a key: its line or lines, but never the dash of a list before it."""
    assert item.key is not None  # the caller looked
    start = item.key[0]
    line = text.rfind("\n", 0, start) + 1
    end = text.find("\n", item.value[1])
    end = len(text) if end < 0 else end + 1
    if not text[line:start].strip():
        return line, end
    # After a dash: the next key takes the place.
    following = item.holder.value[item.follows + 1][0].start_mark.index
    return start, following
