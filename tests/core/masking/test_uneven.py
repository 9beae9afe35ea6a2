"""Numbered blocks of different sizes: budgets count their elements (rules G6.4 and B4.2)."""

import torch

from tersely.arithmetic.blocks import Blocks, element_blocks
from tersely.masking.decide import decide
from tersely.masking.member import Member


def sized(values, sizes, name="a", **limits):
    """Make a member with a block of each size."""
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return Member(
        name=name,
        importance=torch.tensor(values),
        shape=tuple(index.shape),
        blocks=Blocks(index=index),
        **limits,
    )


def masked(kept):
    return [(~tensor).nonzero().flatten().tolist() for tensor in kept]


def test_a_ratio_counts_elements():
    # Half of 10 elements: the blocks of 1 and 4, in ascending importance.
    kept = decide([sized([3.0, 1.0, 2.0], [5, 1, 4], ratio=0.5)])
    assert masked(kept) == [[1, 2]]


def test_masking_ends_with_the_first_block_that_does_not_fit():
    # The block of 4 exceeds 3 elements; the block of 1 that follows would fit and stays.
    kept = decide([sized([2.0, 1.0, 3.0, 9.0], [4, 2, 1, 3], ratio=0.3)])
    assert masked(kept) == [[1]]


def test_of_equal_importances_the_lowest_number_goes_first():
    kept = decide([sized([1.0, 1.0, 1.0], [2, 3, 5], ratio=0.5)])
    assert masked(kept) == [[0, 1]]


def test_blocks_of_one_size_are_counted_as_any_others():
    kept = decide([sized([3.0, 1.0, 2.0, 4.0], [2, 2, 2, 2], ratio=0.5)])
    assert masked(kept) == [[1, 2]]


def test_bounds_of_a_threshold_count_elements():
    low = decide([sized([3.0, 1.0, 2.0], [5, 1, 4], threshold=0.5, minimum=0.5)])
    high = decide([sized([3.0, 1.0, 2.0], [5, 1, 4], threshold=9.0, maximum=0.5)])
    between = decide([sized([3.0, 1.0, 2.0], [5, 1, 4], threshold=1.5, maximum=0.5)])
    assert [masked(one) for one in (low, high, between)] == [[[1, 2]], [[1, 2]], [[1]]]


def test_each_run_meets_the_ratio_of_its_own_elements():
    kept = decide(
        [sized([1.0, 2.0, 3.0, 4.0], [1, 3, 2, 2], ratio=0.5, internal_blocks=2)],
    )
    assert masked(kept) == [[0, 2]]


def test_a_global_group_counts_the_elements_of_each_block():
    even = Member(
        name="b",
        importance=torch.tensor([1.5, 9.0]),
        shape=(2,),
        blocks=element_blocks(1),
        ratio=0.5,
        global_group="g",
    )
    # 12 elements, 6 to go: a's block of 1, b's first element and a's block of 4 are just those.
    kept = decide([sized([3.0, 1.0, 2.0], [5, 1, 4], ratio=0.5, global_group="g"), even])
    assert masked(kept) == [[1, 2], [0]]


def test_bounds_hold_in_a_global_group():
    kept = decide(
        [
            sized([1.0, 2.0], [3, 1], ratio=0.5, global_group="g", maximum=0.2),
            sized([8.0, 9.0], [1, 3], name="b", ratio=0.5, global_group="g", minimum=0.25),
        ]
    )
    # a may lose no block, because its lowest holds more than a fifth; b's lowest goes first.
    assert masked(kept) == [[], [0, 1]]


def test_members_of_a_dependency_group_add_their_elements():
    kept = decide(
        [
            sized([3.0, 1.0, 2.0], [5, 1, 4], ratio=0.5, dependency_group="d"),
            sized([3.0, 1.0, 2.0], [1, 9, 1], name="b", ratio=0.5, dependency_group="d"),
        ]
    )
    # 21 elements, 10 to go: the decision on the blocks of 1 and 9 is all that fits.
    assert masked(kept) == [[1], [1]]
