import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tersely.masking import counting, select
from tersely.masking.select import SMALL, Cut, cut_smallest, is_above


def taken_by_sorting(values, weights, budget):
    """The slow definition: sort all, take while the weight fits."""
    order = sorted(
        (value, tensor, index)
        for tensor, row in enumerate(values)
        for index, value in enumerate(row.tolist())
    )
    taken, left = set(), budget
    for _, tensor, index in order:
        left -= weights[tensor]
        if left < 0:
            break
        taken.add((tensor, index))
    return taken


def taken_by_cut(values, weights, budget):
    cut = cut_smallest(values, weights, budget)
    return {
        (tensor, int(index))
        for tensor, (row, ties) in enumerate(zip(values, cut.ties, strict=True))
        for index in (~is_above(row, cut.value, ties)).nonzero()
    }


def test_the_cut_is_the_first_value_that_no_longer_fits():
    assert cut_smallest([torch.tensor([3.0, 1.0, 2.0])], [1], 2) == Cut(3.0, (0,))


def test_everything_fits_a_budget_of_the_whole():
    assert cut_smallest([torch.tensor([3.0, 1.0])], [2], 4) == Cut(math.inf, (0,))


def test_nothing_fits_a_budget_of_zero():
    values = torch.tensor([3.0, 1.0])
    cut = cut_smallest([values], [1], 0)
    assert is_above(values, cut.value, cut.ties[0]).tolist() == [True, True]


def test_ties_are_taken_at_the_lowest_flat_index():
    values = torch.tensor([5.0, 1.0, 1.0, 0.0, 1.0])
    cut = cut_smallest([values], [1], 3)
    assert is_above(values, cut.value, cut.ties[0]).tolist() == [True, False, False, False, True]


def test_ties_are_taken_from_the_first_tensor_first():
    values = [torch.ones(3), torch.ones(3)]
    assert cut_smallest(values, [1, 1], 4) == Cut(1.0, (3, 1))


def test_the_prefix_ends_at_the_first_value_that_does_not_fit():
    # 2 of weight 3 does not fit into the rest of 2, so 3 of weight 1 is not taken either.
    values = [torch.tensor([2.0]), torch.tensor([1.0, 3.0])]
    assert taken_by_cut(values, [3, 1], 3) == {(1, 0)}


def test_a_tie_that_does_not_fit_ends_the_prefix_before_lighter_ties():
    assert cut_smallest([torch.ones(1), torch.ones(2)], [3, 1], 2) == Cut(1.0, (0, 0))


def test_empty_tensors_take_part_without_values():
    values = [torch.empty(0), torch.tensor([2.0, 1.0])]
    assert taken_by_cut(values, [1, 1], 1) == {(1, 1)}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(-3, 3), max_size=8), st.integers(1, 4)),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 80),
)
def test_the_cut_takes_what_sorting_would_take(tensors, budget):
    values = [torch.tensor(row, dtype=torch.float32) for row, _ in tensors]
    weights = [weight for _, weight in tensors]
    assert taken_by_cut(values, weights, budget) == taken_by_sorting(values, weights, budget)


LARGE = 40_001


@pytest.fixture
def _small_is_large(monkeypatch):
    """Shrink what is sampled and cut directly, so that 40,001 values take the way of millions."""
    for module, name, value in (
        (select, "SAMPLE", 500),
        (select, "SMALL", 1000),
        (counting, "CHUNK", 3000),
        (counting, "ARRAY_CHUNK", 3000),
    ):
        monkeypatch.setattr(module, name, value)


@functools.cache
def distributions():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(LARGE, generator=generator)
    return {
        "normal": normal,
        "ascending": torch.arange(LARGE, dtype=torch.float32),
        "descending": torch.arange(LARGE, 0, -1, dtype=torch.float32),
        "constant": torch.ones(LARGE),
        "two values": (normal > 0).float(),
        "half zeros": normal.clamp(min=0),
        "few levels": (normal * 4).round(),
        "one outlier": torch.cat([torch.zeros(LARGE - 1), torch.ones(1)]),
        "heavy tail": normal.exp().pow(8),
        "double": normal.double(),
        "bfloat16": normal.bfloat16(),
        "float16": normal.half(),
        "saw with the sample's period": torch.arange(LARGE, dtype=torch.float32) % 9,
    }


@pytest.mark.usefixtures("_small_is_large")
@pytest.mark.parametrize("name", sorted(distributions()))
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
def test_a_large_tensor_is_cut_as_a_stable_sort_would_cut_it(name, share):
    values = distributions()[name]
    budget = int(share * LARGE)
    cut = cut_smallest([values], [1], budget)
    expected = torch.ones(LARGE, dtype=torch.bool)
    expected[values.sort(stable=True).indices[:budget]] = False
    assert torch.equal(is_above(values, cut.value, cut.ties[0]), expected)


@pytest.mark.usefixtures("_small_is_large")
@pytest.mark.parametrize("name", ["normal", "half zeros", "few levels", "constant"])
def test_large_tensors_of_several_weights_are_cut_as_a_stable_sort_would_cut_them(name):
    values = list(distributions()[name].split([10_000, 20_000, LARGE - 30_000]))
    weights = [9, 1, 4]
    each = torch.tensor(weights).repeat_interleave(torch.tensor([len(row) for row in values]))
    everything = torch.cat(values)
    for share in (0.01, 0.3, 0.8):
        budget = int(share * int(each.sum()))
        cut = cut_smallest(values, weights, budget)
        order = everything.sort(stable=True).indices
        expected = torch.ones(LARGE, dtype=torch.bool)
        expected[order[each[order].cumsum(0) <= budget]] = False
        found = [is_above(row, cut.value, t) for row, t in zip(values, cut.ties, strict=True)]
        assert torch.equal(torch.cat(found), expected)


def test_more_values_than_are_cut_directly_are_cut_exactly():
    values = torch.randn(SMALL + 12_345, generator=torch.Generator().manual_seed(0))
    cut = cut_smallest([values], [1], SMALL // 3)
    kept = is_above(values, cut.value, cut.ties[0])
    assert (~kept).sum() == SMALL // 3
    assert values[~kept].max() <= values[kept].min()
