"""Ratios as fractions: what they count, and where they may stand."""

import math
import random
from fractions import Fraction

import pytest
from messages.documents import ONLY_ONE

import tersely


def ratio_of(value):
    entry = {"op_types": ["Linear"], "sparse_ratio": value}
    recipe = tersely.load_recipe({"pruning": {"algorithm": "level", "config_list": [entry]}})
    return recipe.stages[0].entries[0].shortcuts["sparse_ratio"]


def test_a_fraction_counts_as_itself_in_any_number_of_blocks():
    draw = random.Random(0)
    for _ in range(2000):
        denominator = draw.randint(1, 9999)
        exact = Fraction(draw.randint(0, denominator), denominator)
        number = Fraction(repr(ratio_of(f"{exact.numerator}/{exact.denominator}")))
        for total in (exact.denominator, draw.randint(1, 10**6), draw.randint(1, 10**10)):
            assert math.floor(number * total) == math.floor(exact * total)


@pytest.mark.parametrize(("text", "number"), [("1/2", 0.5), ("0/7", 0.0), ("3/3", 1.0)])
def test_a_fraction_that_a_number_holds_is_this_number(text, number):
    assert ratio_of(text) == number


def test_spaces_around_the_bar_are_allowed():
    assert ratio_of(" 1 / 4 ") == 0.25


def test_settings_of_targets_take_fractions():
    entry = {"op_types": ["Linear"], "target_settings": {"weight": {"sparse_ratio": "1/4"}}}
    recipe = tersely.load_recipe({"pruning": {"algorithm": "level", "config_list": [entry]}})
    assert recipe.stages[0].entries[0].target_settings["weight"]["sparse_ratio"] == 0.25


def test_bounds_that_are_fractions_are_compared():
    entry = {"op_types": ["Linear"], "min_sparse_ratio": "1/2", "max_sparse_ratio": "1/3"}
    with pytest.raises(tersely.ConfigError, match="is larger than max_sparse_ratio"):
        tersely.load_recipe({"pruning": {"algorithm": "level", "config_list": [entry]}})


def test_a_fraction_and_a_threshold_exclude_each_other():
    entry = {"op_types": ["Linear"], "sparse_ratio": "1/2", "sparse_threshold": 0.1}
    with pytest.raises(tersely.ConfigError, match=ONLY_ONE):
        tersely.load_recipe({"pruning": {"algorithm": "level", "config_list": [entry]}})


def test_the_document_keeps_what_was_written():
    entry = {"op_types": ["Linear"], "sparse_ratio": "1/6"}
    recipe = tersely.load_recipe({"pruning": {"algorithm": "level", "config_list": [entry]}})
    assert recipe.document["pruning"]["config_list"][0]["sparse_ratio"] == "1/6"
