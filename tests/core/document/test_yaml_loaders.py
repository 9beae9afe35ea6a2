"""Two loaders, one meaning: what libyaml reads, PyYAML's own loader reads alike, marks included."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tersely.document.reading import yaml_nodes
from tersely.document.reading.yaml_text import read_yaml
from tersely.errors import ConfigError

two_loaders = pytest.mark.skipif(
    yaml_nodes._CompiledLoader is None,
    reason="PyYAML was built without libyaml, so there is one loader and nothing to compare",
)

ROOT = Path(__file__).parents[3]
WORDS = st.sampled_from(
    ["a", "op_names", "2:4", "1e-3", "~", "yes", "true", "null", "", "x y", "a: b", "- a", "#c"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=20
)
# Pieces of YAML in any order: most are no YAML, and some of what is, is odd.
PIECES = st.lists(
    st.sampled_from(
        [*"abc:-?[]{},&*!|>'\"#%@` \n", "\n  ", "\n    ", "- ", ": ", "? ", "&a ", "*a", "!!int ",
         "<<: ", "---\n", "...\n", "{a: ", "[a, ", "|\n  ", ">-\n  ", " # c\n", "'a'", '"a"', "1"]
    )
)  # fmt: skip


def shape(node, seen):
    """A node as data: its kind, tag, place, value, and which earlier node an alias means."""
    if id(node) in seen:
        return seen[id(node)]
    seen[id(node)] = len(seen)
    mark = (node.start_mark.line, node.start_mark.column)
    value = node.value
    if isinstance(node, yaml.MappingNode):
        value = [(shape(key, seen), shape(one, seen)) for key, one in value]
    elif isinstance(node, yaml.SequenceNode):
        value = [shape(one, seen) for one in value]
    return (type(node).__name__, node.tag, mark, value)


def read_both(text):
    """What both loaders make of a text that libyaml may read; None where it leaves it alone."""
    if not yaml_nodes._is_ordinary(text):
        return None
    try:
        root = yaml_nodes._CompiledLoader(text).get_single_node()
    except yaml.YAMLError:
        return None
    other = yaml_nodes._Loader(text).get_single_node()
    return [None if one is None else shape(one, {}) for one in (root, other)]


@two_loaders
@settings(max_examples=400, deadline=None)
@given(DATA, st.sampled_from([True, False, None]), st.integers(1, 4))
def test_data_is_read_alike(data, flow, indent):
    text = yaml.safe_dump(data, default_flow_style=flow, indent=indent, width=40)
    both = read_both(text)
    if both is not None:
        assert both[0] == both[1]


@two_loaders
@settings(max_examples=1500, deadline=None)
@given(PIECES.map("".join))
@example("a: &x [1, 2]\nb: *x\n")
@example("{a:1, b: 2, 'c':3}")
@example("? a\n: b\n")
@example("- - - a\n  - b\n")
@example("a: |2-\n   x\n\n")
@example("a: 'x\n\n  y'\n")
@example("a:\nb: # nothing\n")
def test_odd_text_is_read_alike(text):
    both = read_both(text)
    if both is not None:
        assert both[0] == both[1]


@two_loaders
@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/**/*.yaml")), ids=lambda path: path.name)
def test_documents_of_ours_are_read_by_libyaml(path):
    text = path.read_text(encoding="utf-8")
    assert yaml_nodes._is_ordinary(text)
    both = read_both(text)
    assert both[0] == both[1]


@two_loaders
def test_json_is_read_alike():
    both = read_both(json.dumps({"a": [1, {"b": None, "c": "x: y"}], "d": {}}, indent=2))
    assert both[0] == both[1]


@pytest.mark.parametrize("text", ["[" * 20_000, "- " * 20_000 + "a", "{a: " * 3_000])
def test_what_is_nested_deeply_is_an_error_and_not_a_crash(text):
    with pytest.raises(ConfigError):
        read_yaml(text)


@pytest.mark.parametrize("text", ["a:\tb", "%YAML 1.2\n---\na: b", "a: é", "a: b\r\n"])
def test_what_might_be_read_otherwise_is_left_to_one_loader(text):
    assert not yaml_nodes._is_ordinary(text)
