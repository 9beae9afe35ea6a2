"""Plugins of one file: how they are run, found, told apart and refused."""

import hashlib
import pickle
import random
import sys
from pathlib import Path

import pytest
from messages.plugins import WRITTEN_FOR

from tersely.errors import BrokenPluginError, PluginApiError, PluginConflictError
from tersely.registry.registry import Registry

SOURCE = """
import tersely


class Thin:
    pass


@tersely.hookimpl
def tersely_pruners():
    return [tersely.PrunerInfo(name="thin", implementation="{module}:Thin", summary="Thin.")]
"""


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def write(tmp_path):
    known = set(sys.modules)

    def write(name="my_pruner.py", source=SOURCE, folder="."):
        place = tmp_path / folder / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(source.replace("{module}", place.stem), encoding="utf-8")
        return place

    yield write
    for name in set(sys.modules) - known:
        if name.startswith("tersely_file_"):
            del sys.modules[name]


def message_of(error, call, *arguments):
    with pytest.raises(error) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_file_provides_what_its_hooks_return(registry, write):
    assert registry.register_file(write()) == "my_pruner.py"
    assert registry.pruners["thin"].__name__ == "Thin"


def test_names_of_a_file_are_qualified_by_its_name(registry, write):
    registry.register_file(write())

    assert registry.pruners.record("thin").qualified == "my_pruner.py:thin"
    assert "my_pruner.py:thin" in registry.pruners


def test_the_version_of_a_file_is_the_digest_of_what_it_says(registry, write):
    place = write()
    registry.register_file(place)

    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    assert registry.pruners.record("thin").version == f"0+sha256.{digest[:12]}"


def test_an_implementation_may_be_named_by_the_modules_own_name(registry, write):
    registry.register_file(write(source=SOURCE.replace('"{module}:', '__name__ + ":')))

    assert registry.pruners["thin"].__name__ == "Thin"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("my-pruner.py", "my_pruner"),
        ("my pruner.py", "my_pruner"),
        ("my.pruner.py", "my.pruner"),
        ("my.pruner.py", "my_pruner"),
        ("2-of-4.py", "_2_of_4"),
        ("über.py", "über"),
    ],
)
def test_a_file_may_have_any_name(registry, write, name, module):
    assert registry.register_file(write(name, SOURCE.replace("{module}", module))) == name
    assert registry.pruners["thin"].__module__ == f"tersely_file_{module.replace('.', '_')}"


@pytest.mark.parametrize(
    ("name", "module"), [("my-pruner.py", "my_pruner"), ("2-of-4.py", "_2_of_4")]
)
def test_an_implementation_that_is_no_identifier_says_how_it_is_written(
    registry, write, name, module
):
    message = message_of(BrokenPluginError, registry.register_file, write(name))

    assert message.endswith(
        f"implementation '{name.removesuffix('.py')}:Thin' must be 'package.module:Object', "
        f"as in '{module}:Thin'"
    )


def test_a_file_hides_no_module_of_its_name(registry, write):
    registry.register_file(write("random.py"))

    assert registry.pruners["thin"].__name__ == "Thin"
    assert sys.modules["random"] is random


def test_objects_of_a_file_can_be_pickled(registry, write):
    registry.register_file(write())
    thin = registry.pruners["thin"]

    assert type(pickle.loads(pickle.dumps(thin()))) is thin


def test_a_changed_file_is_registered_anew(registry, write):
    registry.register_file(write())
    before = registry.pruners.record("thin").version
    registry.unregister("my_pruner.py")

    registry.register_file(write(source=SOURCE.replace("Thin", "Slim")))

    assert registry.pruners["thin"].__name__ == "Slim"
    assert registry.pruners.record("thin").version != before


def test_two_files_of_one_name_are_a_conflict(registry, write):
    registry.register_file(write())

    message = message_of(PluginConflictError, registry.register_file, write(folder="other"))

    assert message.startswith("a plugin called 'my_pruner.py' is registered already")


def test_a_file_that_does_not_exist_says_so(registry, tmp_path):
    message = message_of(BrokenPluginError, registry.register_file, tmp_path / "gone.py")

    assert message == (
        f"{tmp_path / 'gone.py'} cannot be used as a plugin: No such file or directory"
    )


def test_what_is_not_python_is_refused_unread(registry):
    message = message_of(BrokenPluginError, registry.register_file, Path("my_pruner"))

    assert message == (
        "my_pruner cannot be used as a plugin: expected a Python file, whose name ends in .py"
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('not today')", "ValueError: not today"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def", "SyntaxError: invalid syntax (my_pruner.py, line 1)"),
    ],
)
def test_a_file_that_fails_says_how_and_leaves_nothing(registry, write, source, reason):
    place = write(source=source)

    message = message_of(BrokenPluginError, registry.register_file, place)

    assert message == f"{place} cannot be used as a plugin: running it raised {reason}"
    assert "tersely_file_my_pruner" not in sys.modules
    assert registry.plugins() == ()


def test_a_file_without_hooks_says_what_it_lacks(registry, write):
    message = message_of(BrokenPluginError, registry.register_file, write(source="x = 1"))

    assert message.startswith("my_pruner.py cannot be registered: it implements no hook")


def test_a_file_of_another_api_is_refused(registry, write):
    place = write(source="tersely_api = 99\n" + SOURCE)

    message = message_of(PluginApiError, registry.register_file, place)

    assert message.startswith(f"my_pruner.py cannot be registered: {WRITTEN_FOR} 99")


def test_what_a_file_prints_is_kept(registry, write, capsys):
    registry.register_file(write(source="print('hello')\n" + SOURCE))

    (record,) = registry.plugins()
    assert record.loading.printed == "hello\n"
    assert capsys.readouterr().out == ""


def test_a_file_is_known_by_its_place(registry, write):
    place = write()
    registry.register_file(place)

    assert [record.file for record in registry.plugins()] == [str(place.resolve())]
