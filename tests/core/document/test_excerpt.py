"""The line that a mistake stands on."""

import pytest

from tersely.document.reading.excerpt import excerpt


@pytest.mark.parametrize(
    ("line", "column", "carets"),
    [
        ("sparse_ration: 0.5", 1, "^^^^^^^^^^^^^"),
        ("a: 0.5  # half", 4, "   ^^^"),
        ("a: 'x y', b", 4, "   ^^^^^"),
        ("[one, two]", 7, "      ^^^"),
        ("{a: 1}", 5, "    ^"),
        ("a: ", 4, "   ^"),
        ("", 1, "^"),
    ],
)
def test_the_word_at_the_place_is_marked(line, column, carets):
    assert excerpt([line], 1, column) == (f"    1 | {line}", f"      | {carets}")


def test_wide_characters_take_two_columns():
    assert excerpt(["模型: 1"], 1, 5)[1] == "      |       ^"


def test_control_characters_do_not_reach_the_terminal():
    assert excerpt(["a\x1b[31m: 1"], 1, 1)[0] == "    1 | a [31m: 1"


def test_a_long_line_is_cut_around_the_place():
    shown, carets = excerpt(["x" * 500 + " wrong " + "y" * 500], 1, 502)

    assert len(shown) < 120
    assert shown[carets.index("^") :].startswith("wrong ")
    assert carets.count("^") == 5


def test_a_place_after_the_last_line_shows_nothing():
    assert excerpt(["a"], 2, 1) == ()
