"""Nothing that a user can write, call or see is without a test.

What has to be tested is read from where it is defined, as for the documentation; a test counts if
it spells the name as a user does.
"""

import re
from pathlib import Path

import pytest

from tersely import errors
from tersely.registry import hookspecs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tests():
    """The text of each test, those of the documentation left out."""
    folders = [ROOT / "tests", *(ROOT / "spec").glob("cases")]
    return [
        file.read_text(encoding="utf-8")
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.suffix in {".py", ".json", ".yaml"} and "docs" not in file.parts[-2:]
    ]


def test_every_key_of_a_document_is_in_a_test(tests, keys_of):
    every = "".join(tests)
    keys = keys_of("config_list") | keys_of("recipe") | keys_of("job")
    assert keys
    assert sorted(key for key in keys if not re.search(rf"\b{key}\b", every)) == []


def test_every_command_and_option_is_called_by_a_test(tests, options):
    assert len(options) > 10
    untested = []
    for words, spelled in options.items():
        texts = [text for text in tests if f'"{words[-1]}"' in text]
        called = [option for option in spelled if any(f'"{option}"' in text for text in texts)]
        untested += [words] if not texts else []
        untested += [(*words, option) for option in spelled if option not in called]
    assert untested == []


def test_every_error_is_expected_by_a_test(tests):
    every = "".join(tests)
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.TerselyError)
    }
    assert raised
    assert sorted(name for name in raised if not re.search(rf"\b{name}\b", every)) == []


def test_every_hook_is_implemented_by_a_test_or_the_core(tests):
    every = "".join(tests) + (ROOT / "core/tersely/registry/core_face.py").read_text(
        encoding="utf-8"
    )
    hooks = [name for name in vars(hookspecs) if name.startswith("tersely_")]
    assert hooks
    assert [name for name in hooks if f"def {name}(" not in every] == []
