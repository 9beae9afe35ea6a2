import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages.blocks import NO_BLOCK_SIZE, ONE_PER_BLOCK
from messages.planning import INDIVISIBLE, left_over

from tersely.arithmetic.blocks import (
    Blocks,
    block_numel,
    channel_blocks,
    count_blocks,
    element_blocks,
    expand_blocks,
    is_broadcastable,
    reduce_blocks,
    resolve_size,
    sum_blocks,
    tensor_blocks,
    to_blocks,
)

FOUR_BY_FOUR = torch.arange(16.0).reshape(4, 4)


@st.composite
def cut_tensors(draw):
    rank = draw(st.integers(0, 4))
    counts = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    sizes = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    shape = [count * size for count, size in zip(counts, sizes, strict=True)]
    tensor = torch.arange(float(math.prod(shape))).reshape(shape)
    order = draw(st.permutations(range(rank)))
    return tensor.permute(order), tuple(sizes[dim] for dim in order)


def test_minus_one_is_the_whole_dimension():
    assert resolve_size((1, -1), (4, 6)) == (1, 6)


def test_minus_one_of_an_empty_dimension_is_one():
    assert resolve_size((1, -1), (4, 0)) == (1, 1)


def test_a_size_of_another_rank_is_an_error():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        resolve_size((1,), (4, 4))
    assert str(caught.value) == "block size [1] has 1 dimensions, the shape [4, 4] has 2"


@pytest.mark.parametrize("size", [0, -2])
def test_a_size_below_one_is_an_error(size):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        resolve_size((size,), (4,))
    assert str(caught.value) == f"block size [{size}]: {size} {NO_BLOCK_SIZE}"


def test_a_size_that_leaves_elements_over_is_an_error():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        resolve_size((1, 4), (2, 6))
    assert str(caught.value) == (
        f"block size [1, 4] {INDIVISIBLE} [2, 6]: dimension 1 has 6 elements, {left_over(2, 4)}"
    )


def test_blocks_are_counted_along_each_dimension():
    assert count_blocks((2, -1), (4, 6)) == (2, 1)


def test_an_empty_tensor_has_no_blocks():
    assert count_blocks((1, -1), (0, 6)) == (0, 1)


def test_a_block_holds_the_product_of_its_sizes():
    assert block_numel((2, -1), (4, 6)) == 12


def test_blocks_of_two_by_two_hold_their_elements_in_order():
    assert to_blocks(FOUR_BY_FOUR, (2, 2)).tolist() == [
        [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]],
        [[8.0, 9.0, 12.0, 13.0], [10.0, 11.0, 14.0, 15.0]],
    ]


def test_rows_as_blocks_share_the_tensors_memory():
    assert to_blocks(FOUR_BY_FOUR, (1, -1)).data_ptr() == FOUR_BY_FOUR.data_ptr()


def test_a_scalar_is_one_block():
    assert to_blocks(torch.tensor(3.0), ()).tolist() == [3.0]


def test_sums_of_two_by_two_blocks():
    assert sum_blocks(FOUR_BY_FOUR, (2, 2)).tolist() == [[10.0, 18.0], [42.0, 50.0]]


def test_any_reduction_over_the_last_dimension_serves():
    largest = reduce_blocks(FOUR_BY_FOUR, (1, -1), lambda blocks, dim: blocks.amax(dim))
    assert largest.tolist() == [[3.0], [7.0], [11.0], [15.0]]


def test_values_are_repeated_over_their_blocks():
    values = torch.tensor([[1.0, 2.0]])
    assert expand_blocks(values, (2, 2), (2, 4)).tolist() == [[1.0, 1.0, 2.0, 2.0]] * 2


def test_channel_values_are_expanded_without_a_copy():
    values = torch.tensor([[1.0], [2.0]])
    assert expand_blocks(values, (1, -1), (2, 4)).data_ptr() == values.data_ptr()


def test_values_of_the_wrong_shape_are_an_error():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        expand_blocks(torch.zeros(2), (2, 2), (2, 4))
    assert str(caught.value) == f"{ONE_PER_BLOCK}, shape (1, 2), got (2,)"


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 1), True), ((1, -1), True), ((-1, 4), True), ((1, 2), False)]
)
def test_ones_and_whole_dimensions_broadcast(size, expected):
    assert is_broadcastable(size, (2, 4)) is expected


def test_element_blocks_are_all_ones():
    assert element_blocks(3) == Blocks((1, 1, 1))


def test_the_tensor_block_is_all_minus_one():
    assert tensor_blocks(2) == Blocks((-1, -1))


def test_channel_blocks_keep_one_dimension_apart():
    assert channel_blocks(4, 1) == Blocks((-1, 1, -1, -1))


def test_channel_blocks_count_a_negative_dimension_from_the_end():
    assert channel_blocks(3, -1) == Blocks((-1, -1, 1))


@settings(deadline=None)
@given(cut_tensors())
def test_blocks_hold_every_element_once(cut):
    tensor, size = cut
    assert sorted(to_blocks(tensor, size).flatten().tolist()) == sorted(tensor.flatten().tolist())


@settings(deadline=None)
@given(cut_tensors())
def test_expanding_block_sums_and_summing_again_multiplies_by_the_block(cut):
    tensor, size = cut
    tensor = tensor.double()  # float32 cannot hold every sum of these integers
    sums = sum_blocks(tensor, size)
    again = sum_blocks(expand_blocks(sums, size, tensor.shape), size)
    assert torch.equal(again, sums * block_numel(size, tensor.shape))
