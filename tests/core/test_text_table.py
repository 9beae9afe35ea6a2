"""Tables as plain text."""

from tersely.text_table import Column, TextTable, boxed, ruled


def table(*rows: tuple[str, str], has_footer: bool = False) -> TextTable:
    columns = (
        Column(heading="name", footer="all"),
        Column(heading="size", footer="12", is_number=True),
    )
    return TextTable(columns=columns, rows=rows, has_footer=has_footer)


def test_a_boxed_table_is_as_wide_as_its_content() -> None:
    assert boxed(table(("weight", "8"), ("b", "4"), has_footer=True)) == [
        "┏━━━━━━━━┳━━━━━━┓",
        "┃ name   ┃ size ┃",
        "┡━━━━━━━━╇━━━━━━┩",
        "│ weight │    8 │",
        "│ b      │    4 │",
        "├────────┼──────┤",
        "│ all    │   12 │",
        "└────────┴──────┘",
    ]


def test_a_ruled_table_has_a_rule_under_its_head() -> None:
    assert ruled(table(("weight", "8"))) == [
        " name     size",
        " ─────────────",
        " weight      8",
    ]


def test_wide_characters_take_two_columns_and_combining_ones_none() -> None:
    assert ruled(table(("编码", "1"), ("e\u0301", "2")))[2:] == [
        " 编码      1",
        " e\u0301         2",
    ]


def test_a_cell_of_several_lines_becomes_one_line() -> None:
    assert ruled(table(("a\nb", "1")))[2:] == [" a b       1"]


def test_a_table_without_rows_has_a_head() -> None:
    assert ruled(table()) == [" name   size", " ───────────"]
