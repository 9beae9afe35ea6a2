"""The author's guide shows every member of what a plugin implements, in an example that is run.

The members are read from the classes of `tersely.contracts`, and the examples from the blocks that
test_code.py executes: those with a file name and those in Python.
"""

import ast
import inspect

import attrs
import pytest

import tersely
from tersely import contracts
from tersely.contracts.ability_names import PRUNER_ABILITIES, QUANTIZER_ABILITIES

PAGES = {
    "pruner": ("pruners", "pruners-in-training", "pruners-that-solve"),
    "quantizer": (
        "quantizers",
        "quantizers-and-grids",
        "quantizers-in-training",
        "quantizers-that-solve",
    ),
    "granularity": ("granularities",),
    "loss": ("losses",),
    "exporter": ("exporters",),
}
ABILITIES = [
    *(("pruner", name) for name in PRUNER_ABILITIES),
    *(("quantizer", name) for name in QUANTIZER_ABILITIES),
    ("loss", "StatefulLoss"),
    ("exporter", "RunsExport"),
]
PROTOCOLS = [
    ("pruner", tersely.Pruner),
    ("quantizer", tersely.Quantizer),
    ("quantizer", tersely.Observer),
    ("granularity", tersely.Granularity),
    ("exporter", tersely.Exporter),
    ("exporter", tersely.DependencyTracer),
]
GIVEN = [
    ("pruner", tersely.PruningTarget),
    ("pruner", contracts.Curvature),
    ("pruner", contracts.WholeModel),
    ("pruner", tersely.Solution),
    ("quantizer", tersely.QuantizationTarget),
    ("quantizer", tersely.QuantizedWeight),
    ("exporter", tersely.ExportSource),
    ("exporter", contracts.IntegerWeight),
    ("exporter", tersely.QuantizedActivation),
    ("exporter", tersely.SharedChannels),
]
HAD = {"ScoresBlocks": {"importance"}}
"""What an ability does itself: a class that wrote it as well would not gain from the ability."""
OF_THE_CORE = {"make_floats", "make_program"}
"""What only the core calls: the members that they stand for are explained instead."""


def members(cls) -> set[str]:
    """Public names that a class has of its own or of what it extends within tersely."""
    ours = [one for one in cls.__mro__ if one.__module__.startswith("tersely.")]
    names = {name for one in ours for name in (*vars(one), *inspect.get_annotations(one))}
    if attrs.has(cls):
        names |= {field.name for field in attrs.fields(cls)}
    return {name for name in names if not name.startswith("_")}


def examples(pages, kind) -> list[ast.Module]:
    """The code of a kind's pages that the tests execute."""
    blocks = [block for page in PAGES[kind] for block in pages[f"docs/plugins/{page}.md"].blocks]
    return [ast.parse(one.text) for one in blocks if one.language == "python"]


def own_names(definition: ast.ClassDef) -> set[str]:
    """What a class defines: methods, attributes, and what it assigns to ``self``."""
    names = {node.name for node in definition.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(definition):
        is_stored = isinstance(getattr(node, "ctx", None), ast.Store)
        if is_stored and isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    for node in definition.body:
        if isinstance(node, ast.Assign):
            names |= {ast.unparse(target) for target in node.targets}
    return names


def shown(pages, kind) -> dict[str, set[str]]:
    """Each base of a class in an example -> the members that such classes define."""
    found: dict[str, set[str]] = {}
    for module in examples(pages, kind):
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for one in classes:
            names = own_names(one)
            for base in one.bases:
                found.setdefault(ast.unparse(base).rpartition(".")[2], set()).update(names)
            found.setdefault("", set()).update(names)
    return found


def test_every_ability_belongs_to_a_kind():
    known = {name for _, name in ABILITIES}
    abilities = {
        name
        for name in contracts.__all__
        if inspect.isclass(getattr(contracts, name))
        and issubclass(getattr(contracts, name), contracts.Ability)
    }
    assert sorted(abilities - known - {"Ability"}) == []


@pytest.mark.parametrize(("kind", "name"), ABILITIES)
def test_every_member_of_an_ability_is_in_an_example_that_declares_it(kind, name, pages):
    found = shown(pages, kind)
    assert name in found
    wanted = members(getattr(contracts, name)) - HAD.get(name, set())
    assert sorted(wanted - found[name]) == []


@pytest.mark.parametrize(("kind", "protocol"), PROTOCOLS)
def test_every_member_of_a_protocol_is_in_an_example(kind, protocol, pages):
    assert sorted(members(protocol) - shown(pages, kind)[""]) == []


@pytest.mark.parametrize(("kind", "given"), GIVEN)
def test_every_member_of_what_a_plugin_is_given_is_explained(kind, given, pages):
    text = "".join(pages[f"docs/plugins/{page}.md"].text for page in PAGES[kind])
    missing = [
        name
        for name in members(given) - OF_THE_CORE
        if not any(f"`{name}{end}" in text for end in ("`", "(")) and f"{name}=" not in text
    ]
    assert sorted(missing) == []
