"""Budgets of single targets: ratio, threshold, bounds, scopes and N:M."""

import math
from fractions import Fraction

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages.blocks import not_finite
from messages.planning import COUNTS_IN_SCOPES, REMOVE_ONE

from tersely.arithmetic.blocks import Blocks, channel_blocks, element_blocks, sum_blocks
from tersely.errors import CalibrationError, PlanError
from tersely.masking.decide import decide
from tersely.masking.member import Member


def member(importance, *, shape=None, blocks=None, name="fc.weight", **limits):
    importance = torch.as_tensor(importance)
    return Member(
        name=name,
        importance=importance,
        shape=tuple(importance.shape) if shape is None else shape,
        blocks=element_blocks(importance.dim()) if blocks is None else blocks,
        **limits,
    )


def decide_one(importance, **limits):
    (kept,) = decide([member(importance, **limits)])
    return kept


def test_a_ratio_masks_the_lowest_importances():
    kept = decide_one([[4.0, 1.0], [3.0, 2.0]], ratio=0.5)
    assert kept.tolist() == [[True, False], [True, False]]


def test_a_ratio_of_zero_keeps_everything():
    assert decide_one([1.0, 2.0], ratio=0.0).all()


def test_a_ratio_of_one_masks_everything():
    assert not decide_one([1.0, 2.0], ratio=1.0).any()


def test_29_of_100_equal_blocks_are_the_first_29():
    kept = decide_one(torch.ones(100), ratio=0.29)
    assert kept.tolist() == [False] * 29 + [True] * 71


def test_a_fraction_of_a_schedule_counts_exactly():
    kept = decide_one(torch.arange(10.0), ratio=Fraction(6, 10) * Fraction(1, 3))
    assert (~kept).sum() == 2


def test_without_ratio_and_threshold_everything_is_kept():
    assert decide_one([1.0, 2.0], minimum=0.5).all()


def test_a_ratio_below_the_minimum_is_raised_to_it():
    assert (~decide_one(torch.arange(10.0), ratio=0.1, minimum=0.45)).sum() == 4


def test_a_ratio_above_the_maximum_is_lowered_to_it():
    assert (~decide_one(torch.arange(10.0), ratio=0.9, maximum=0.3)).sum() == 3


def test_a_threshold_masks_what_is_below_and_keeps_what_is_equal():
    assert decide_one([0.1, 0.2, 0.3], threshold=0.2).tolist() == [False, True, True]


def test_a_threshold_that_masks_too_little_is_cut_again_at_the_minimum():
    kept = decide_one([4.0, 1.0, 3.0, 2.0], threshold=0.0, minimum=0.5)
    assert kept.tolist() == [True, False, True, False]


def test_a_threshold_that_masks_too_much_is_cut_again_at_the_maximum():
    kept = decide_one([4.0, 1.0, 3.0, 2.0], threshold=9.0, maximum=0.25)
    assert kept.tolist() == [True, False, True, True]


def test_a_ratio_is_met_in_every_scope():
    blocks = Blocks((1, 1), scope=(1, -1))
    kept = decide_one([[1.0, 2.0, 3.0, 4.0], [80.0, 70.0, 60.0, 50.0]], ratio=0.5, blocks=blocks)
    assert kept.tolist() == [[False, False, True, True], [True, True, False, False]]


def test_a_threshold_is_bounded_in_every_scope():
    blocks = Blocks((1, 1), scope=(1, -1))
    importance = [[1.0, 2.0, 3.0, 4.0], [8.0, 7.0, 6.0, 5.0]]
    kept = decide_one(importance, threshold=4.5, minimum=0.25, maximum=0.5, blocks=blocks)
    assert kept.tolist() == [[False, False, True, True], [True, True, True, False]]


def test_a_scope_counts_blocks_of_several_elements():
    blocks = Blocks((2, 1), scope=(-1, 2))
    kept = decide_one(
        [[1.0, 9.0, 5.0, 2.0], [2.0, 8.0, 6.0, 3.0]], shape=(4, 4), ratio=0.5, blocks=blocks
    )
    assert kept.tolist() == [[False, True, True, False], [False, True, True, False]]


def test_two_of_four_along_dimension_one_of_a_convolution():
    importance = torch.tensor([1.0, 2.0, 3.0, 4.0, 40.0, 30.0, 20.0, 10.0]).reshape(1, 8, 1, 1)
    blocks = Blocks((1, 1, 1, 1), scope=(1, 4, 1, 1), keep=2)
    kept = decide_one(importance.expand(2, 8, 3, 3), blocks=blocks)
    expected = torch.tensor([0, 0, 1, 1, 1, 1, 0, 0], dtype=torch.bool).reshape(1, 8, 1, 1)
    assert torch.equal(kept, expected.expand(2, 8, 3, 3))


def test_n_of_m_keeps_exactly_n_of_equal_importances():
    blocks = Blocks((1, 1), scope=(1, 4), keep=2)
    kept = decide_one(torch.zeros(3, 8), blocks=blocks, ratio=0.9)
    assert kept.tolist() == [[False, False, True, True] * 2] * 3


def test_runs_of_a_grouped_convolution_meet_the_ratio_each():
    kept = decide_one(torch.arange(8.0), ratio=0.5, internal_blocks=2)
    assert kept.tolist() == [False, False, True, True] * 2


def test_a_number_of_runs_that_does_not_divide_the_blocks_is_an_error():
    with pytest.raises(PlanError) as caught:
        decide_one(torch.arange(8.0), ratio=0.5, internal_blocks=3)
    assert str(caught.value) == (
        "fc.weight: internal_metric_block 3 does not divide its 8 blocks; what does: 1, 2, 4, 8"
    )


def test_runs_and_scopes_together_are_an_error():
    with pytest.raises(PlanError) as caught:
        decide_one(
            torch.zeros(4, 4), blocks=Blocks((1, 1), scope=(1, 4), keep=2), internal_blocks=2
        )
    assert str(caught.value) == (
        "fc.weight: internal_metric_block 2 cannot split blocks whose granularity already "
        f"{COUNTS_IN_SCOPES}; {REMOVE_ONE}"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_importance_that_is_not_finite_is_an_error(value):
    with pytest.raises(CalibrationError) as caught:
        decide_one([[1.0, 2.0], [value, 3.0]], ratio=0.5)
    assert str(caught.value) == (
        f"fc.weight: 1 of its 4 importances {not_finite(value)}, at flat index 2); check the "
        "model's weights and the calibration data for NaN and overflow"
    )


def test_importances_whose_sum_overflows_are_accepted():
    largest = torch.finfo(torch.float32).max
    assert decide_one([largest, largest, 0.0], ratio=0.4).tolist() == [True, True, False]


def test_importances_of_the_wrong_shape_are_an_error():
    with pytest.raises(ValueError, match=r"^fc.weight: expected one importance per block, shape"):
        member(torch.zeros(4, 1), shape=(4, 4))


def test_an_empty_target_gets_an_empty_mask():
    assert decide_one(torch.empty(0, 4), ratio=0.5).shape == (0, 4)


def test_a_scalar_target_is_one_block():
    assert decide_one(torch.tensor(3.0), ratio=0.5).tolist() is True
    assert decide_one(torch.tensor(3.0), ratio=1.0).tolist() is False


def test_importances_that_require_a_gradient_are_detached():
    kept = decide_one(torch.tensor([1.0, 2.0], requires_grad=True), ratio=0.5)
    assert kept.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_decided_alike(dtype):
    importance = torch.tensor([4.0, 1.0, 3.0, 2.0], dtype=dtype)
    assert decide_one(importance, ratio=0.5).tolist() == [True, False, True, False]


def test_importances_that_lie_apart_in_memory_are_decided_by_logical_index():
    importance = torch.ones(2, 3).T
    assert decide_one(importance, ratio=0.5).tolist() == [
        [False, False],
        [False, True],
        [True, True],
    ]


@st.composite
def block_shapes(draw):
    rank = draw(st.integers(1, 3))
    counts = draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank))
    sizes = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    return tuple(counts), tuple(sizes)


@settings(deadline=None)
@given(block_shapes(), st.integers(0, 1000), st.integers(0, 2**32))
def test_the_budget_is_met_exactly_on_any_blocks(layout, thousandths, seed):
    counts, sizes = layout
    shape = tuple(count * size for count, size in zip(counts, sizes, strict=True))
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    importance = sum_blocks(weight, sizes)
    kept = decide_one(importance, shape=shape, blocks=Blocks(sizes), ratio=thousandths / 1000)
    assert (~kept).sum() == math.prod(counts) * thousandths // 1000
    if kept.any() and not kept.all():
        assert importance[~kept].max() <= importance[kept].min()


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 20), st.data())
def test_n_of_m_keeps_n_in_every_run(rows, runs, run, data):
    kept_of_run = data.draw(st.integers(1, run))
    levels = st.integers(0, 4)
    count = rows * runs * run
    values = data.draw(st.lists(levels, min_size=count, max_size=count))
    importance = torch.tensor(values, dtype=torch.float32).reshape(rows, runs * run)
    kept = decide_one(importance, blocks=Blocks((1, 1), scope=(1, run), keep=kept_of_run))
    assert (kept.reshape(-1, run).sum(1) == kept_of_run).all()


def test_channel_blocks_of_a_transposed_weight_are_decided_in_block_shape():
    kept = decide_one(
        torch.tensor([[3.0, 1.0, 2.0]]), shape=(4, 3), blocks=channel_blocks(2, 1), ratio=0.34
    )
    assert kept.tolist() == [[True, False, True]]


@pytest.mark.parametrize("group", [None, "all"])
@pytest.mark.parametrize("rows", [60, 600], ids=["cut directly", "cut by a sample"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_expendable_importance_gives_its_memory_to_an_equal_decision(group, rows, dtype):
    generator = torch.Generator().manual_seed(0)
    importances = [torch.rand(rows, 1000, generator=generator).mul_(9).ceil_() for _ in range(2)]
    members = [
        member(importance.to(dtype), ratio=0.4, global_group=group) for importance in importances
    ]
    expected = decide(members)
    given = [
        attrs.evolve(one, importance=one.importance.clone(), is_expendable=True) for one in members
    ]
    for one, kept, wanted in zip(given, decide(given), expected, strict=True):
        assert kept.dtype == dtype
        assert kept.data_ptr() == one.importance.data_ptr()
        assert torch.equal(kept != 0, wanted)
        assert torch.equal(kept, wanted.to(dtype))


def test_what_is_not_expendable_is_not_written():
    values = torch.rand(60, 1000, generator=torch.Generator().manual_seed(0))
    before = values.clone()
    decide([member(values, ratio=0.4)])
    assert torch.equal(values, before)
