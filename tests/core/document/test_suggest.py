"""Nearest names."""

import difflib
import random

import pytest

from tersely.text import did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sparse_ration", "sparse_ratio"),
        ("SPARSE-RATIO", "sparse_ratio"),
        ("sparseratio", "sparse_ratio"),
        ("op_type", "op_types"),
        ("gran", "granularity"),
    ],
)
def test_the_most_similar_name_comes_first(word, expected):
    assert nearest(word, ["granularity", "sparse_ratio", "op_types"])[0] == expected


def test_nothing_is_near_to_something_else():
    assert nearest("zzz", ["sparse_ratio"]) == ()
    assert did_you_mean("zzz", ["sparse_ratio"]) is None


def test_of_equally_near_names_the_first_leads():
    assert nearest("fc", ["fc2", "fc1"]) == ("fc2", "fc1")


def test_two_letters_are_near_to_the_only_name_that_begins_with_them():
    assert nearest("l2", ["l1_norm", "l2_norm"]) == ("l2_norm",)
    assert nearest("l2", ["l2_norm", "l2_distance"]) == ()


def test_the_number_of_names_is_bounded():
    assert len(nearest("fc", [f"fc{n}" for n in range(9)], count=2)) == 2


def test_the_hint_is_a_question():
    assert did_you_mean("mull", ["mul", "add"]) == "did you mean 'mul'?"


@pytest.mark.parametrize("seed", range(20))
def test_names_that_look_alike_are_those_that_difflib_finds(seed):
    chosen = random.Random(seed)
    names = ["".join(chosen.choices("abcd", k=chosen.randint(1, 6))) for _ in range(30)]
    word = "".join(chosen.choices("abcd", k=5))

    found = nearest(word, names)
    close = difflib.get_close_matches(word, dict.fromkeys(names), n=3, cutoff=0.65)

    assert [*found[: len(close)]] == close
    assert all(name.startswith(word) for name in found[len(close) :])
