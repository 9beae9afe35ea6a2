"""Rules beyond the schema: bounds, exclusions, patterns, and one target under two names."""

import warnings

import pytest
from messages.documents import ONLY_ONE, found


@pytest.mark.parametrize(
    ("first", "second"),
    [("sparse_ratio", "sparse_threshold"), ("sparse_threshold", "sparse_ratio")],
)
def test_a_ratio_and_a_threshold_exclude_each_other(entry_lines, first, second):
    message = (
        f"found {second!r} together with {first!r}, {ONLY_ONE} (remove {second!r} or {first!r})"
    )
    both = {first: 0.5, second: 0.5}

    assert entry_lines("pruning", **both) == [f"[0].{second}: {message}"]
    assert entry_lines("pruning", target_settings={"weight": both}) == [
        f"[0].target_settings.weight.{second}: {message}"
    ]


def test_a_ratio_beside_no_threshold_is_fine(entry_lines):
    assert entry_lines("pruning", sparse_ratio=0.5, sparse_threshold=None) == []


def test_a_ratio_and_a_threshold_may_stand_on_different_levels_of_a_document(entry_lines):
    settings = {"weight": {"sparse_threshold": 0.1}}

    assert entry_lines("pruning", sparse_ratio=0.5, target_settings=settings) == []


def test_a_target_follows_another_or_has_a_ratio(entry_lines):
    setting = {"align": {"target_name": "weight", "dims": [0]}, "sparse_ratio": 0.5}

    assert entry_lines("pruning", target_settings={"bias": setting}) == [
        "[0].target_settings.bias.sparse_ratio: "
        + found(
            "'sparse_ratio' together with 'align'",
            "only one of them",
            "remove 'sparse_ratio' or 'align'",
        )
    ]


BOUNDS = (
    "min_sparse_ratio 0.8 is larger than max_sparse_ratio 0.2 "
    "(the smallest share comes first: min_sparse_ratio <= max_sparse_ratio)"
)


def test_the_smallest_share_is_not_above_the_largest(entry_lines):
    bounds = {"min_sparse_ratio": 0.8, "max_sparse_ratio": 0.2}

    assert entry_lines("pruning", **bounds) == [f"[0].min_sparse_ratio: {BOUNDS}"]
    assert entry_lines("pruning", target_settings={"weight": bounds}) == [
        f"[0].target_settings.weight.min_sparse_ratio: {BOUNDS}"
    ]


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0, 1), (0.2, None), (None, 0.2)])
def test_bounds_that_leave_room_are_fine(entry_lines, low, high):
    assert entry_lines("pruning", min_sparse_ratio=low, max_sparse_ratio=high) == []


@pytest.mark.parametrize("key", ["op_names_re", "exclude_op_names_re"])
@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("fc(", "missing ), unterminated subpattern at position 2"),
        ("*", "nothing to repeat at position 0"),
        ("[a", "unterminated character set at position 0"),
    ],
)
def test_a_pattern_is_a_regular_expression(entry_lines, key, pattern, reason):
    assert entry_lines("pruning", **{key: ["fine", pattern]}) == [
        f"[0].{key}[1]: {pattern!r} is not a regular expression: {reason} (put a backslash before "
        "characters that are meant literally)"
    ]


def test_a_pattern_that_python_only_warns_of_is_fine(entry_lines):
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        assert entry_lines("pruning", op_names_re=["[[a]"]) == []


def test_a_pattern_can_be_nested_too_deeply(entry_lines):
    (line,) = entry_lines("pruning", op_names_re=["(" * 5000 + ")" * 5000])

    assert "is not a regular expression: it is nested too deeply" in line


def test_the_empty_pattern_is_legal(entry_lines):
    assert entry_lines("pruning", op_names_re=[""]) == []


@pytest.mark.parametrize(("first", "second"), [("_input_", "_input_0"), ("_output_0", "_output_")])
def test_one_target_is_set_under_one_name(entry_lines, first, second):
    assert entry_lines("pruning", target_settings={first: {}, "weight": {}, second: {}}) == [
        f"[0].target_settings.{second}: {second!r} and {first!r} are the same target, expected "
        "one of them (put all of its keys under one name)"
    ]


def test_all_problems_come_at_once_in_document_order(lines):
    text = """\
quantization:
  algorithm: qatt
  config_list:
  - op_types: [Linear]
    quant_dtype: int1
    op_types: [Conv2d]
pruning:
- algorithm: level
  config_list:
  - op_names_re: ['(']
    min_sparse_ratio: 0.8
    sparse_ratio: 2
    max_sparse_ratio: 0.2
    spase_threshold: .nan
"""
    places = [line.split(": ")[0] for line in lines(text)]

    assert places == ["2:14", "5:18", "6:5", "10:19", "11:23", "12:19", "14:5", "14:22"]
