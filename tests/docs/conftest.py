"""The pages of the documentation, cut into their blocks and sections."""

from pathlib import Path

import attrs
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
