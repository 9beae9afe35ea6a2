"""Ratios that count what masks remove: the shortest ascending prefix that reaches them."""

import pytest
import torch

from tersely.arithmetic.blocks import Blocks
from tersely.errors import PlanError, SessionError
from tersely.masking.counted import Removal
from tersely.masking.decide import decide
from tersely.masking.member import Member


def member(name, importance, ratio, **keys):
    return Member(
        name=name,
        importance=torch.tensor(importance, dtype=torch.float64),
        shape=(len(importance),),
        blocks=Blocks((1,)),
        ratio=ratio,
        global_group="g",
        budget="macs",
        **keys,
    )


def chain(budget, kept):
    """A layer of 10 inputs whose rows another of 10 rows reads: operations of both."""
    left = [int(one.sum()) for one in kept]
    return Removal(2 * 100 - 10 * left[0] - left[0] * left[1], 200)


def masked(importances, ratio, *, count=chain, **keys):
    members = [
        member(name, one, ratio, **keys) for name, one in zip("ab", importances, strict=True)
    ]
    return [(~one).nonzero().flatten().tolist() for one in decide(members, count=count)]


RISING = [float(one) for one in range(10)]


def test_masking_stops_with_the_block_that_reaches_the_ratio():
    # Each row of a that is masked removes 10 + 10: 100 of 200 are gone with the fifth.
    found = masked([RISING, [10.0 + one for one in range(10)]], 0.5)
    assert found == [[0, 1, 2, 3, 4], []]


def test_what_a_block_removes_depends_on_what_else_is_masked():
    # Alternating from a on: n rows of each leave 10 (10 - n) + (10 - n)^2; three leave 119, and the
    # fourth of a (6 * 10 + 6 * 7 = 102) is not enough for 100, the fourth of b (96) is.
    found = masked([[2.0 * one for one in range(10)], [2.0 * one + 1 for one in range(10)]], 0.5)
    assert found == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_equal_importances_are_masked_in_the_order_of_members():
    assert masked([[1.0] * 10, [1.0] * 10], 0.1) == [[0], []]


def test_a_ratio_of_zero_masks_nothing():
    assert masked([RISING, RISING], 0) == [[], []]


def test_a_minimum_is_masked_first():
    found = masked([RISING, [10.0 + one for one in range(10)]], 0.5, minimum=0.2)
    # Two rows of b are forced: n rows of a then leave (10 - n) (10 + 8), 90 with the fifth.
    assert found == [[0, 1, 2, 3, 4], [0, 1]]


def test_what_a_maximum_forbids_is_not_masked():
    # Four rows of a leave 6 * 10 + 6 * n of b: 96 with n = 6.
    found = masked([RISING, [10.0 + one for one in range(10)]], 0.5, maximum=0.4)
    assert found == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_blocks_that_remove_nothing_by_themselves_are_passed():
    def only_a(budget, kept):
        return Removal(10 * int((~kept[0]).sum()), 100)

    found = masked([[10.0 + one for one in range(10)], RISING], 0.3, count=only_a)
    assert found == [[0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]


def test_few_counts_find_the_block_among_many():
    calls = []

    def count(budget, kept):
        calls.append(budget)
        left = int(kept[0].sum())
        return Removal(10**8 - left * left, 10**8)

    values = torch.rand(10**4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    [kept] = decide([member("a", values.tolist(), 0.75)], count=count)
    assert int(kept.sum()) == 5000
    assert len(calls) < 20


def test_a_ratio_out_of_reach_says_how_far_the_group_goes():
    members = [member("a", RISING, 0.5, maximum=0.1), member("b", RISING, 0.5, maximum=0.1)]
    with pytest.raises(PlanError) as caught:
        decide(members, count=chain)
    text = str(caught.value)
    assert "requires removing 100 of the model's 200 multiply-accumulate operations" in text
    assert "removes only 29" in text
    assert "raise max_sparse_ratio" in text


def test_a_session_that_cannot_run_the_model_says_so():
    with pytest.raises(SessionError, match=r"no example inputs; give example_inputs to"):
        decide([member("a", RISING, 0.5)])
