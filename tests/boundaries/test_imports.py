"""Who may import whom: the core no plugin, plugins public names only, floors downwards only."""

import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path

import tersely
from tersely.extras import EXTRAS

# From the ground up; a part imports from itself and from lower floors, not from its neighbours.
FLOORS = (
    {"errors", "extras", "log", "text", "text_table", "json_value", "version"},
    {"arithmetic"},
    {"contracts"},
    {"registry"},
    {"document"},
    {"masking"},
    {"planning"},
    {"instrument"},
    {"engine"},
    {"calibration"},
    {"pruning", "quantization", "distillation"},
    {"shrinking"},
    {"storage"},
    {"exporting"},
    {"reporting"},
    {"session"},
    {"jobs"},
    {"searching"},
    {"testing"},
    {"cli"},
)
PUBLIC = frozenset({"tersely.contracts"})
"""Modules beside `tersely` itself from which a plugin may import."""

LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if _is_type_checking(child):
            continue
        yield child
        yield from _running(child)


def _imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports that run, ``package.name`` for ``from package import name``."""
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _named(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports, also of those that only type checkers read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(name: str, modules: set[str]) -> str | None:
    """The module that a dotted name stands in, or None where it is none of these."""
    parent = name.rpartition(".")[0]
    return next((one for one in (name, parent) if one in modules), None)


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules in circles and between them: those without an end in one direction go."""
    left = {module: set(imported) - {module} for module, imported in graph.items()}
    while True:
        asked = set().union(*left.values())
        ends = [one for one, named in left.items() if one not in asked or not named & left.keys()]
        if not ends:
            return sorted(left)
        for module in ends:
            del left[module]


def _without_explained_imports(tree: ast.AST) -> ast.AST:
    """A copy of a tree without what stands in ``with extra(...)``."""
    rest = copy.deepcopy(tree)
    for node in ast.walk(rest):
        if isinstance(node, ast.With) and ast.unparse(node.items[0]).startswith("extra("):
            node.body = [ast.Pass()]
    return rest


def _floor(module: str) -> str:
    """The part of a core module's name that has a floor: ``session`` of ``tersely.session.plan``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def _is_attribute_of_tersely(node: ast.AST) -> bool:
    is_name = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return is_name and node.value.id == "tersely"


def _private_uses(tree: ast.AST, *, allowed: frozenset[str]) -> Iterator[str]:
    """Every use of tersely that is not one of its public names."""
    public = set(tersely.__all__)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                f"import {alias.name}"
                for alias in node.names
                if alias.name.startswith("tersely.") and alias.name not in allowed
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tersely":
            if node.module in allowed:
                continue
            yield from (
                f"from {node.module} import {alias.name}"
                for alias in node.names
                if node.module != "tersely" or alias.name not in public
            )
        elif (
            _is_attribute_of_tersely(node)
            and node.attr not in public
            and f"tersely.{node.attr}" not in allowed
        ):
            yield f"tersely.{node.attr}"


def test_the_core_imports_no_plugin(core):
    found = [
        f"{source.path}: {name}"
        for source in core
        for name in _imported(source.tree)
        if name.startswith("tersely_")
    ]
    assert found == []


def test_every_library_of_an_extra_is_imported_where_its_absence_is_explained(core):
    libraries = {package for packages in EXTRAS.values() for package in packages}
    found = [
        f"{source.path}: {name}"
        for source in core
        for name in _imported(_without_explained_imports(source.tree))
        if name.split(".")[0] in libraries
        # The command line is reached through cli.main, which explains that click is missing.
        and not (_floor(source.module) == "cli" and name == "click")
    ]
    assert found == []


def test_every_part_of_the_core_has_a_floor(core):
    parts = {_floor(source.module) for source in core} - {""}
    assert sorted(parts - set(LEVEL)) == []


def test_the_page_for_contributors_has_the_same_floors():
    page = Path(__file__).parents[2] / "docs" / "contributing.md"
    text = page.read_text(encoding="utf-8").split("| floor |")[1].split("\n\n")[0]
    rows = [row.split("|")[1] for row in text.splitlines()[2:]]
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == list(FLOORS)


def test_the_core_imports_downwards_only(core):
    """What only type checkers read counts, and so do imports inside functions."""
    upward = [
        f"{source.path}: {name}"
        for source in core
        for name in _named(source.tree)
        if (own := _floor(source.module))
        and name.startswith("tersely.")
        and (other := _floor(name)) in LEVEL
        and (LEVEL[other] > LEVEL[own] or (LEVEL[other] == LEVEL[own] > 0 and other != own))
    ]
    assert upward == []


def test_no_files_import_each_other_in_a_circle(core, plugins):
    """Imports inside functions and those that only type checkers read count."""
    sources = (*core, *plugins)
    modules = {source.module for source in sources}
    graph = {
        source.module: {found for name in _named(source.tree) if (found := _file(name, modules))}
        for source in sources
    }
    assert _circle(graph) == []


def test_the_core_asks_its_own_front_door_for_nothing(core):
    found = []
    for source in core:
        for node in _running(source.tree):
            if isinstance(node, ast.ImportFrom) and node.module == "tersely":
                names = {alias.name for alias in node.names} - set(LEVEL)
            elif _is_attribute_of_tersely(node):
                names = {node.attr}
            else:
                continue
            found += [f"{source.path}: {name}" for name in sorted(names)]
    assert found == []


def test_plugins_use_public_names_only(plugins):
    found = [
        f"{source.path}: {use}"
        for source in plugins
        for use in _private_uses(source.tree, allowed=PUBLIC)
    ]
    assert found == []


def test_families_do_not_import_each_other(plugins):
    found = [
        f"{source.path}: {name}"
        for source in plugins
        for name in _imported(source.tree)
        if name.startswith("tersely_") and name.split(".")[0] != source.module.split(".")[0]
    ]
    assert found == []


def test_a_package_from_outside_needs_public_names_and_the_contract_checks_only(outsiders):
    allowed = PUBLIC | {"tersely.testing"}
    found = [
        f"{source.path}: {use}"
        for source in outsiders
        for use in _private_uses(source.tree, allowed=allowed)
    ]
    assert outsiders
    assert found == []
