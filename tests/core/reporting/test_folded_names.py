"""Patterns that stand for the names of repeated blocks."""

import pytest

from tersely.reporting.printing.folded_names import fold_names


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        ([], ()),
        (["conv"], ("conv",)),
        ([""], ("(root)",)),
        (["conv", "fc"], ("conv", "fc")),
        (["0", "2"], ("{0,2}",)),
        (["0", "1", "2"], ("{0..2}",)),
        ([f"l.{i}.{k}" for i in range(6) for k in ("q", "v")], ("l.{0..5}.{q,v}",)),
        (["l.0.q", "l.0.v", "l.1.q"], ("l.0.{q,v}", "l.1.q")),
        (["a.0.x", "a.1.y"], ("a.0.x", "a.1.y")),
        (["l.0", "l.1", "l.3", "head"], ("l.{0,1,3}", "head")),
        ([f"b.{name}" for name in "abcdefgh"], ("b.{a,b,c,d,e,f,+2}",)),
        (["l1.0.c", "l2.0.c", "l2.0.d"], ("l1.0.c", "l2.0.{c,d}")),
    ],
)
def test_what_differs_in_one_place_is_one_pattern(names, patterns):
    assert fold_names(names) == patterns
