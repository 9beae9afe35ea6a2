"""The pages of the documentation in their blocks and sections, and what has to be on them."""

import json
from pathlib import Path

import attrs
import click
import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Block:
    """One fenced block of a page.

    Attributes:
        language: the first word after the fence, or a code-block directive's argument.
        text: its content without the directive's options.
        line: the 1-based line its text starts at.
        caption: the file name it is shown under, or None.
    """

    language: str
    text: str
    line: int
    caption: str | None = None


@attrs.frozen
class Page:
    """One page of the documentation.

    Attributes:
        name: its path relative to the repository root.
        text: what it says.
        blocks: its fenced blocks, in order.
    """

    name: str
    text: str
    blocks: tuple[Block, ...]

    @property
    def sections(self) -> dict[str, str]:
        """Heading without backticks -> text up to the next heading of any level."""
        found: dict[str, str] = {}
        heading, fenced = "", False
        for line in self.text.splitlines():
            fenced ^= line.startswith("```")
            if not fenced and line.startswith("#"):
                heading = line.lstrip("#").strip().replace("`", "")
                found[heading] = ""
            elif heading:
                found[heading] += line + "\n"
        return found


def _block(token) -> Block:
    info, lines, line = token.info.strip(), token.content.splitlines(), token.map[0] + 2
    if not info.startswith("{"):
        return Block(info, token.content, line)
    language = info.partition("}")[2].strip()
    options = 0
    while options < len(lines) and lines[options].startswith(":"):
        options += 1
    caption = next(
        (item.split(":", 2)[2].strip() for item in lines[:options] if item.startswith(":caption:")),
        None,
    )
    if not info.startswith("{code-block}"):
        language, caption = info, None
    return Block(language, "\n".join(lines[options:]) + "\n", line + options, caption)


def read_page(file: Path) -> Page:
    """Parse one page."""
    text = file.read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").parse(text)
    blocks = tuple(_block(token) for token in tokens if token.type == "fence")
    return Page(file.relative_to(ROOT).as_posix(), text, blocks)


def all_pages() -> list[Page]:
    """Return README and every page under docs."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [read_page(file) for file in files if "_build" not in file.parts]


@pytest.fixture(scope="session")
def pages() -> dict[str, Page]:
    """Every page by its path."""
    return {page.name: page for page in all_pages()}


def plugin_files() -> list[Block]:
    """Return the plugins of one file that the author's guide shows."""
    guide = [page for page in all_pages() if page.name.startswith("docs/plugins/")]
    return [
        block
        for page in guide
        for block in page.blocks
        if block.caption and "hookimpl" in block.text
    ]


def pytest_generate_tests(metafunc):
    """Run a test that asks for a page, or for a plugin's file, once for each that there is."""
    if "plugin_file" in metafunc.fixturenames:
        files = plugin_files()
        metafunc.parametrize("plugin_file", files, ids=[file.caption for file in files])
    if "page" in metafunc.fixturenames:
        pages = [page for page in all_pages() if page.blocks]
        metafunc.parametrize("page", pages, ids=[page.name for page in pages])


def _properties(schema) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_properties, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties", {})
    found = {key for key in own if isinstance(own, dict)}
    return found.union(*(_properties(value) for value in schema.values()))


@pytest.fixture(scope="session")
def keys_of():
    """Return every key that the schema of a document knows, at any depth."""

    def find(document):
        schema = ROOT / "spec" / f"{document}.schema.json"
        return _properties(json.loads(schema.read_text(encoding="utf-8")))

    return find


@pytest.fixture(scope="session")
def options():
    """Words of each command, groups left out -> the long spellings of its options."""
    from tersely.cli.main import cli

    found: dict[tuple[str, ...], list[str]] = {}
    waiting: list[tuple[tuple[str, ...], click.Command]] = [((), cli)]
    while waiting:
        words, command = waiting.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                waiting.append(((*words, name), command.get_command(context, name)))
            continue
        found[words] = [
            parameter.opts[-1]
            for parameter in command.params
            if isinstance(parameter, click.Option) and not parameter.hidden
        ]
    return found
