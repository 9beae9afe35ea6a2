"""How files are cut and named, and what may not stand in them."""

import ast

SAYS_NOTHING = {"utils", "helpers", "common", "base", "misc"}


def _late_imports(tree: ast.Module) -> list[ast.stmt]:
    """Return the imports inside functions, in the order of their lines."""
    found = {
        inner.lineno: inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    }
    return [found[line] for line in sorted(found)]


def _unexplained(source) -> list[int]:
    """Return the lines of late imports without a comment on them or above their run."""
    lines = source.text.splitlines()
    silent, explained_until = [], 0
    for node in _late_imports(source.tree):
        first, last = node.lineno, node.end_lineno
        is_said = any("#" in line for line in lines[first - 2 : last])
        if not is_said and explained_until != first - 1:
            silent.append(first)
        else:
            explained_until = last
    return silent


def test_no_file_name_is_a_drawer_for_odds_and_ends(core, plugins):
    found = [
        source.path
        for source in (*core, *plugins)
        if SAYS_NOTHING & set(source.module.strip("_").split("."))
    ]
    assert found == []


def test_every_module_says_in_its_docstring_what_lives_there(core, plugins):
    silent = [
        source.path
        for source in (*core, *plugins)
        if source.tree.body and not ast.get_docstring(source.tree)
    ]
    assert silent == []


def test_every_part_that_is_not_public_says_so(core):
    public = {"tersely", "tersely.contracts", "tersely.testing"}
    parts = [source for source in core if source.path.endswith("__init__.py")]
    wrong = [
        source.module
        for source in parts
        if ("Private: " in ast.get_docstring(source.tree)) == (source.module in public)
    ]
    assert wrong == []


def test_nothing_prints_outside_the_command_line(core, plugins):
    found = [
        f"{source.path}:{node.lineno}"
        for source in (*core, *plugins)
        if not source.module.startswith("tersely.cli")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert found == []


def test_every_late_import_says_why(core, plugins):
    found = [
        f"{source.path}:{line}" for source in (*core, *plugins) for line in _unexplained(source)
    ]
    assert found == []


def test_every_folder_of_modules_is_a_package(core, plugins):
    modules = {source.path for source in (*core, *plugins)}
    folders = {path.rpartition("/")[0] for path in modules} - {"core"}
    assert sorted(folder for folder in folders if f"{folder}/__init__.py" not in modules) == []
