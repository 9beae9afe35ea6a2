"""Patterns are matched by Python's own engine, and in bounded time."""

import re

import pytest

from tersely import PlanError
from tersely.planning.selecting import patterns
from tersely.planning.selecting.patterns import is_quick, matches

NAMES = ["", "fc", "fc10", "layer.1.fc", "layer.1.layer.2.fc", "encoder.0.attn.q_proj", "aaab"]


@pytest.mark.parametrize(
    "pattern",
    [
        ".*", r"layers\.\d+\.fc", r"(?:a|b)\d+\.x$", "(ab){5}", "(?i:FOO).*bar", r"(x)?(?(1)y+|z+)",
        r".*layers\.\d+\.(self_attn|mlp)\.(q|k|v)_proj$", "fc1", r"(?=.*x)a{3}", "[a-z]+",
    ],
)  # fmt: skip
def test_ordinary_patterns_are_matched_at_once(pattern):
    assert is_quick(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$", "(a|ab|b)*c", "a?a?a?a?b", ".*.*.*.*x", "(a{1,2}){50}", r"(\w+\.)*fc", "((a*)*)*",
        "(?=(a+)+b)a", "(x)(?(1)(a+)+|b)",
    ],
)  # fmt: skip
def test_patterns_that_can_explode_are_with_stages_in_labels(pattern):
    assert not is_quick(pattern)


def test_a_long_name_makes_every_pattern_suspicious():
    assert not is_quick(".*x", longest=401)


@pytest.mark.parametrize("pattern", [r"(layer\.\d+\.)+fc", "(fc|fc1)*", "a?a?a?a?b", "(?i)(E|n)+c"])
def test_a_suspicious_pattern_matches_what_python_matches(pattern):
    expected = [index for index, name in enumerate(NAMES) if re.match(pattern, name)]

    assert matches(pattern, NAMES, path="here") == expected


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)*$", "(a|a)*$", "(.*.*.*)*x$"])
def test_a_pattern_that_would_never_end_is_an_error(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 1)

    with pytest.raises(PlanError) as caught:
        matches(pattern, ["a" * 60 + "b"], path="pruning.config_list[0].op_names_re[0]")

    assert str(caught.value) == (
        f"pruning.config_list[0].op_names_re[0]: {pattern!r} takes more than 1 seconds to match "
        "the names of this model, because repetitions are nested or too many follow one "
        r"another; write [^.]* for a part of a name, or list the names in op_names"
    )
    assert caught.value.path == "pruning.config_list[0].op_names_re[0]"


def test_a_pattern_as_long_as_a_book_is_cut_in_the_error(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 1)

    with pytest.raises(PlanError) as caught:
        matches("(a+)+$|" + "x" * 5000, ["a" * 60 + "b"], path="here")

    assert len(str(caught.value)) < 700
