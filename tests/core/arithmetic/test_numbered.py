"""Blocks of any shape, by number (rules G6.1 to G6.3)."""

import copy
import pickle

import numpy as np
import pytest
import torch
from messages.blocks import INDEX_ALONE, NO_BLOCK_SIZE, NUMBERS_FROM_0
from messages.sessions import ON_META

from tersely import Blocks, count_blocks, expand_blocks, reduce_blocks, sum_blocks, to_blocks
from tersely.arithmetic.blocks import block_numel, is_broadcastable, resolve_size
from tersely.arithmetic.numbered import renumber, uneven_sizes
from tersely.arithmetic.ranges import block_range

DIAGONALS = [[0, 1, 2], [2, 0, 1], [1, 2, 0]]
VALUES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])


def test_there_are_as_many_blocks_as_numbers():
    assert count_blocks(Blocks(index=DIAGONALS).size, (3, 3)) == (3,)


def test_a_sum_is_that_of_the_elements_with_one_number():
    sums = sum_blocks(VALUES, Blocks(index=DIAGONALS).size)
    assert sums.tolist() == [1 + 5 + 9, 2 + 6 + 7, 3 + 4 + 8]


def test_any_reduction_sees_the_elements_of_one_block_in_a_row():
    found = reduce_blocks(VALUES, Blocks(index=DIAGONALS).size, torch.amax)
    assert found.tolist() == [9.0, 7.0, 8.0]


def test_blocks_of_different_sizes_are_reduced_too():
    size = Blocks(index=[0, 1, 1, 2, 2, 2, 0]).size
    values = torch.tensor([5.0, 1.0, 2.0, 9.0, 8.0, 7.0, 6.0])
    assert reduce_blocks(values, size, torch.amin).tolist() == [5.0, 1.0, 7.0]
    assert sum_blocks(values, size).tolist() == [11.0, 3.0, 24.0]


def test_the_range_of_a_block_is_that_of_its_elements():
    low, high = block_range(VALUES, Blocks(index=DIAGONALS).size)
    assert (low.tolist(), high.tolist()) == ([1.0, 2.0, 3.0], [9.0, 7.0, 8.0])


def test_a_value_per_block_is_repeated_over_its_elements():
    found = expand_blocks(torch.tensor([10, 20, 30]), Blocks(index=DIAGONALS).size, (3, 3))
    assert found.tolist() == [[10, 20, 30], [30, 10, 20], [20, 30, 10]]


def test_blocks_of_one_size_become_rows():
    rows = to_blocks(VALUES, Blocks(index=DIAGONALS).size)
    assert rows.tolist() == [[1.0, 5.0, 9.0], [2.0, 6.0, 7.0], [3.0, 4.0, 8.0]]


def test_blocks_of_different_sizes_make_no_rows():
    with pytest.raises(ValueError, match="hold 1 to 2 elements, expected equally many in each"):
        to_blocks(torch.zeros(3), Blocks(index=[0, 0, 1]).size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_long_sum_of_short_floats_loses_nothing(dtype):
    size = Blocks(index=torch.zeros(5000, dtype=torch.int64)).size
    assert sum_blocks(torch.ones(5000, dtype=dtype), size).item() == torch.tensor(5000.0).to(dtype)


def test_counts_of_a_mask_are_integers():
    kept = torch.tensor([True, False, True, True])
    assert sum_blocks(kept, Blocks(index=[0, 0, 1, 1]).size).tolist() == [1, 2]


def test_sizes_are_told_only_where_they_differ():
    assert uneven_sizes(Blocks(index=DIAGONALS).size) is None
    assert uneven_sizes(Blocks(index=[0, 1, 1]).size).tolist() == [1, 2]
    assert block_numel(Blocks(index=DIAGONALS).size, (3, 3)) == 3


def test_numbered_blocks_never_broadcast():
    assert not is_broadcastable(Blocks(index=[[0, 1], [0, 1]]).size, (2, 2))


@pytest.mark.parametrize(
    "index", [np.array(DIAGONALS, dtype=np.int16), torch.tensor(DIAGONALS), DIAGONALS]
)
def test_an_index_is_a_tensor_an_array_or_lists(index):
    assert Blocks(index=index) == Blocks(index=DIAGONALS)
    assert Blocks(index=index).index.dtype == torch.int32


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        (np.broadcast_to(np.arange(2)[:, None], (2, 2)), [[0, 0], [1, 1]]),
        (np.arange(4)[::-1].reshape(2, 2), [[3, 2], [1, 0]]),
        ([np.arange(2), np.arange(2)], [[0, 1], [0, 1]]),
        ([torch.arange(2), torch.arange(2)], [[0, 1], [0, 1]]),
        ([[], []], [[], []]),
    ],
)
def test_an_index_is_any_view_of_an_array_or_any_sequence(index, numbers):
    assert Blocks(index=index).index.tolist() == numbers


def test_other_numbers_are_other_blocks():
    assert Blocks(index=[0, 1]) != Blocks(index=[1, 0])
    assert Blocks(index=[0, 1]) != Blocks(size=(1,))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_equal(copied):
    blocks = Blocks(index=DIAGONALS)
    assert copied(blocks) == blocks
    assert hash(copied(blocks)) == hash(blocks)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([[0.0, 1.0]], "has dtype torch.float64, expected integers"),
        ([[True, False]], "has dtype torch.bool, expected integers"),
        ([[-1, 0]], f"holds -1, {NUMBERS_FROM_0}"),
        ([[0, 2, 2]], "goes up to 2, but no element is in block 1"),
        ([[0, 9]], "holds 9, and its tensor has fewer elements than that"),
        ([[0, 1], [0]], "is not a tensor"),
        (torch.arange(2, device="meta"), f"{ON_META}, expected a dense tensor"),
        (torch.eye(2, dtype=torch.int64).to_sparse(), "has layout torch.sparse_coo, expected a"),
    ],
)
def test_what_numbers_no_blocks_is_refused(index, message):
    with pytest.raises(ValueError, match=message):
        Blocks(index=index)


def test_an_index_has_its_tensors_shape():
    with pytest.raises(ValueError, match=r"has shape \[3, 3\], expected the tensor's shape \[9\]"):
        resolve_size(Blocks(index=DIAGONALS).size, (9,))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "found neither"),
        ({"size": (1,), "index": [0]}, "found both"),
        ({"index": [0, 1], "scope": (1,)}, INDEX_ALONE),
        ({"index": [0, 1], "keep": 1}, INDEX_ALONE),
    ],
)
def test_an_index_stands_alone(given, message):
    with pytest.raises(ValueError, match=message):
        Blocks(**given)


def test_code_that_reads_lengths_fails_instead_of_cutting_something_else():
    size = Blocks(index=DIAGONALS).size
    with pytest.raises(TypeError, match="no part that numbers fewer dimensions"):
        size[1:]
    with pytest.raises(ValueError, match=f"0 {NO_BLOCK_SIZE}"):
        resolve_size(list(size), (3, 3))


def test_what_is_left_of_blocks_is_numbered_without_gaps():
    numbers, left = renumber(torch.tensor([4, 1, 1, 4], dtype=torch.int32))
    assert (numbers.tolist(), left.tolist()) == ([1, 0, 0, 1], [1, 4])
