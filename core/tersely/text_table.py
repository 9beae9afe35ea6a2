"""Tables as plain text, as wide as their content."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import attrs

Cells = tuple[str, ...]


@attrs.frozen(kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        heading: what the first line says.
        footer: what the last line says, where the table has a footer.
        is_number: whether cells are flush right.
    """

    heading: str
    footer: str = ""
    is_number: bool = False


@attrs.frozen(kw_only=True)
class TextTable:
    """A table of one-line cells.

    Attributes:
        columns: from left to right.
        rows: from top to bottom, each with one cell per column.
        has_footer: whether the footers of the columns are shown.
        alarming: indices of the rows that a terminal shows in red.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    has_footer: bool = False
    alarming: frozenset[int] = frozenset()


def boxed(table: TextTable) -> list[str]:
    """Return the lines of a table with a frame around every cell of its head.

    Args:
        table: the table to draw.
    """
    head, rows, footer = _cells(table)
    widths = _widths((head, *rows, *footer))
    bars = ["━" * (width + 2) for width in widths]
    rules = ["─" * (width + 2) for width in widths]
    lines = [f"┏{'┳'.join(bars)}┓"]
    lines.append("┃" + "┃".join(f" {cell} " for cell in _padded(table, head, widths)) + "┃")
    lines.append(f"┡{'╇'.join(bars)}┩")
    lines.extend(_framed(table, rows, widths))
    if footer:
        lines.append(f"├{'┼'.join(rules)}┤")
        lines.extend(_framed(table, footer, widths))
    lines.append(f"└{'┴'.join(rules)}┘")
    return lines


def ruled(table: TextTable) -> list[str]:
    """Return the lines of a table with one rule under its head.

    Args:
        table: the table to draw; its footer is left out.
    """
    head, rows, _ = _cells(table)
    widths = _widths((head, *rows))
    lines = [" " + "   ".join(_padded(table, row, widths)) for row in (head, *rows)]
    lines.insert(1, " " + "─" * (sum(widths) + 3 * (len(widths) - 1)))
    return [line.rstrip() for line in lines]


def _cells(table: TextTable) -> tuple[Cells, list[Cells], list[Cells]]:
    head = tuple(_one_line(column.heading) for column in table.columns)
    rows = [tuple(_one_line(cell) for cell in row) for row in table.rows]
    footer = [tuple(_one_line(column.footer) for column in table.columns)]
    return head, rows, footer if table.has_footer else []


def _one_line(cell: str) -> str:
    return " ".join(cell.splitlines())


def _widths(rows: Sequence[Cells]) -> list[int]:
    return [max(map(_width, column)) for column in zip(*rows, strict=True)]


def _width(cell: str) -> int:
    """How many columns of a terminal a text takes: wide characters two, combining ones none."""
    if cell.isascii():
        return len(cell)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in cell
    )


def _padded(table: TextTable, row: Cells, widths: Sequence[int]) -> Iterator[str]:
    for column, cell, width in zip(table.columns, row, widths, strict=True):
        space = " " * (width - _width(cell))
        yield space + cell if column.is_number else cell + space


def _framed(table: TextTable, rows: Sequence[Cells], widths: Sequence[int]) -> Iterator[str]:
    for row in rows:
        yield "│" + "│".join(f" {cell} " for cell in _padded(table, row, widths)) + "│"
