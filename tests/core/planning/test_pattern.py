"""What may stand beside N kept of every M: nothing that asks for another number."""

import pytest
from messages.planning import EQUAL_RATIOS, KEPT_AMONG_NEIGHBOURS, NO_MEANING

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.settings import PruningSetting
from tersely.planning.targets.pattern import pattern_problems

TWO_OF_FOUR = Blocks((1, 1), scope=(1, 4), keep=2)


def problems(blocks=TWO_OF_FOUR, **setting):
    return pattern_problems(PruningSetting.of({"granularity": "2:4", **setting}), blocks)


def test_its_own_ratio_and_bounds_around_it_are_fine():
    assert problems(sparse_ratio=0.5, min_sparse_ratio=0.5, max_sparse_ratio=0.5) == ()


def test_nothing_is_checked_where_no_number_is_kept():
    assert problems(None, sparse_ratio=0.75) == ()
    assert problems(Blocks((1, 1), scope=(1, 4)), sparse_ratio=0.75) == ()


def test_another_ratio_is_told_with_both_numbers():
    assert problems(sparse_ratio=0.75) == (
        f"granularity '2:4' masks exactly 0.5, but sparse_ratio is 0.75; {EQUAL_RATIOS}",
    )


@pytest.mark.parametrize(
    ("key", "bound"),
    [
        ("min_sparse_ratio", 0.75),  # floor(0.75 * 4) = 3 > 2
        ("max_sparse_ratio", 0.49),  # floor(0.49 * 4) = 1 < 2
    ],
)
def test_a_bound_that_it_does_not_meet_is_told(key, bound):
    assert problems(**{key: bound}) == (
        f"granularity '2:4' masks exactly 0.5, which {key} {bound:g} does not allow; remove {key}",
    )


def test_a_bound_counts_whole_blocks_of_the_decimal_as_written():
    # floor(0.74 * 4) = 2: no more than two are asked for.
    assert problems(min_sparse_ratio=0.74) == ()
    # 0.29 of 100 is 29, whose nearest binary fraction is a little less.
    seventy_one = Blocks((1,), scope=(100,), keep=71)
    assert problems(seventy_one, max_sparse_ratio=0.29) == ()


@pytest.mark.parametrize("key", ["sparse_threshold", "global_group_id", "dependency_group_id"])
def test_a_key_that_counts_otherwise_has_no_meaning(key):
    assert problems(**{key: 1}) == (
        f"granularity '2:4' {KEPT_AMONG_NEIGHBOURS}, so '{key}' {NO_MEANING}",
    )
