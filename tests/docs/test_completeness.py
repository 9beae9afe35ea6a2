"""Nothing that a user can write, call or see is without documentation.

What has to be documented is read from where it is defined: the schemas, the click commands, the
error classes, the hook specifications, the descriptors and the public names.
"""

import inspect
import re
from pathlib import Path

import attrs
import pytest

import tersely
from tersely import errors
from tersely.registry import descriptors, hookspecs

ROOT = Path(__file__).parents[2]


def _defined(text: str) -> set[str]:
    """Names that a page defines: a heading, the term of a definition, the first cell of a row."""
    return set(re.findall(r"^(?:#+ |\| )?`([^`]+)`(?= *$| *\|)", text, flags=re.MULTILINE))


def _errors() -> list[type]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.TerselyError)
    ]


def _descriptors() -> list[type]:
    return [
        value
        for name, value in vars(descriptors).items()
        if inspect.isclass(value) and attrs.has(value) and name in tersely.__all__
    ]


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ("config_list", "docs/reference/config.md"),
        ("recipe", "docs/reference/recipe.md"),
        ("job", "docs/reference/job.md"),
    ],
)
def test_every_key_of_a_document_is_explained(document, where, pages, keys_of):
    assert sorted(keys_of(document) - _defined(pages[where].text)) == []


def test_every_command_and_option_is_explained(pages, options):
    sections = pages["docs/reference/cli.md"].sections
    missing = []
    for words, spelled in options.items():
        name = " ".join(["tersely", *words])
        if name not in sections:
            missing.append(name)
            continue
        missing += [f"{name} {option}" for option in spelled if f"`{option}" not in sections[name]]
    assert missing == []


def test_every_error_is_explained_with_a_message_that_is_printed(pages):
    sections = pages["docs/reference/errors.md"].sections
    silent = [
        error.__name__
        for error in _errors()
        if error is not errors.TerselyError and "```output" not in sections.get(error.__name__, "")
    ]
    assert silent == []


def test_every_hook_is_explained(pages):
    hooks = {name for name in vars(hookspecs) if name.startswith("tersely_")}
    assert hooks
    assert sorted(hooks - set(pages["docs/plugins/hooks.md"].sections)) == []


def test_every_field_of_every_descriptor_is_explained(pages):
    sections = pages["docs/plugins/hooks.md"].sections
    missing = [
        f"{descriptor.__name__}.{field.name}"
        for descriptor in _descriptors()
        for field in attrs.fields(descriptor)
        if f"`{field.name}`" not in sections.get(descriptor.__name__, "")
    ]
    assert missing == []


@pytest.mark.parametrize("descriptor", _descriptors(), ids=lambda one: one.__name__)
def test_every_field_of_a_descriptor_has_an_example_that_it_accepts(descriptor, pages):
    sections = pages["docs/plugins/hooks.md"].sections
    text = sections["Descriptors"] + sections[descriptor.__name__]
    rows = re.findall(r"^\| `(\w+)` \| .* \| `(\w+=.*)` \|$", text, flags=re.MULTILINE)
    fields = {field.name for field in attrs.fields(descriptor)}
    shown = {name: example for name, example in rows if name in fields}
    assert sorted(fields - set(shown)) == []

    needed = [
        shown[field.name] for field in attrs.fields(descriptor) if field.default is attrs.NOTHING
    ]
    for name, example in shown.items():
        given = ", ".join(dict.fromkeys([example, *needed]))
        made = eval(f"descriptor({given})", {"descriptor": descriptor})
        assert attrs.asdict(made)[name] == eval(f"dict({example})")[name]


def test_every_public_name_is_in_the_reference(pages):
    shown = set(
        re.findall(
            r"auto(?:class|function|data):: tersely\.(\w+)\n", pages["docs/reference/api.md"].text
        )
    )
    assert sorted(set(tersely.__all__) - shown - {"__version__"}) == []


def test_the_list_of_public_names_is_complete_and_names_nothing_else(pages):
    listed = pages["docs/reference/api.md"].sections["Public names"]
    rows = re.findall(r"^\| [a-z ]+ \| (`.*) \|$", listed, flags=re.MULTILINE)
    names = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted(names) == sorted(tersely.__all__)


def test_every_environment_variable_is_explained(pages, tmp_path):
    text = "".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "core" / "tersely").rglob("*.py")
    )
    variables = set(re.findall(r"\bTERSELY_[A-Z_]+\b", text))
    assert sorted(variables - _defined(pages["docs/plugins/debugging.md"].text)) == []


def test_every_page_is_reached_from_the_front_page(pages):
    reached, waiting = set(), ["docs/index.md"]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        folder = (ROOT / name).parent
        for block in pages[name].blocks:
            if block.language != "{toctree}":
                continue
            for entry in block.text.split():
                target = (folder / f"{entry}.md").resolve()
                waiting.append(target.relative_to(ROOT).as_posix())
    assert sorted({name for name in pages if name.startswith("docs/")} - reached) == []
