"""Global groups share one budget of elements; dependency groups share one decision."""

import math

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages.planning import DIFFERENT_SCOPES, ONE_DECISION, SAME_NUMBER_OF_BLOCKS

from tersely.arithmetic.blocks import Blocks, channel_blocks, element_blocks
from tersely.errors import PlanError
from tersely.masking.decide import decide
from tersely.masking.member import Member


def elements(name, values, **limits):
    importance = torch.as_tensor(values, dtype=torch.float32)
    return Member(
        name=name,
        importance=importance,
        shape=tuple(importance.shape),
        blocks=element_blocks(importance.dim()),
        **limits,
    )


def rows(name, values, width, **limits):
    """One block per output channel of a (channels, width) weight."""
    importance = torch.as_tensor(values, dtype=torch.float32)[:, None]
    return Member(
        name=name,
        importance=importance,
        shape=(len(importance), width),
        blocks=channel_blocks(2, 0),
        **limits,
    )


def masked(kept):
    return [(~tensor).flatten().tolist() for tensor in kept]


def counts(kept):
    return [int((~tensor).sum()) for tensor in kept]


class TestGlobal:
    def test_one_budget_takes_the_lowest_of_all_members(self):
        kept = decide(
            [
                elements("a", [1.0, 2.0, 9.0, 8.0], ratio=0.5, global_group="g"),
                elements("b", [3.0, 7.0], ratio=0.5, global_group="g"),
            ]
        )
        assert masked(kept) == [[True, True, False, False], [True, False]]

    def test_two_groups_have_two_budgets(self):
        kept = decide(
            [
                elements("a", [1.0, 2.0], ratio=0.5, global_group="g"),
                elements("b", [3.0, 4.0], ratio=0.5, global_group=1),
                elements("c", [0.0, 0.0], ratio=0.5),
            ]
        )
        assert masked(kept) == [[True, False], [True, False], [True, False]]

    def test_blocks_of_different_size_count_their_elements(self):
        # 24 elements, budget 12: a1 (4), b1 (2), a2 (4), b2 (2) are exactly 12.
        kept = decide(
            [
                rows("a", [1.0, 3.0, 5.0, 7.0], 4, ratio=0.5, global_group="g"),
                rows("b", [2.0, 4.0, 6.0, 8.0], 2, ratio=0.5, global_group="g"),
            ]
        )
        assert counts(kept) == [2, 2]

    def test_the_budget_is_not_exceeded_by_a_block_that_does_not_fit(self):
        # 12 elements, budget 6: a1 takes 4, a2 would make 8, and b1 after it stays too.
        kept = decide(
            [
                rows("a", [1.0, 2.0], 4, ratio=0.5, global_group="g"),
                rows("b", [3.0, 4.0], 2, ratio=0.5, global_group="g"),
            ]
        )
        assert counts(kept) == [1, 0]

    def test_equal_importances_are_masked_in_the_order_of_members(self):
        kept = decide(
            [
                elements("a", [1.0] * 4, ratio=0.75, global_group="g"),
                elements("b", [1.0] * 4, ratio=0.75, global_group="g"),
            ]
        )
        assert masked(kept) == [[True] * 4, [True, True, False, False]]

    def test_a_ratio_of_one_masks_everything(self):
        kept = decide(
            [
                elements("a", [1.0, 2.0], ratio=1.0, global_group="g"),
                elements("b", [3.0], ratio=1.0, global_group="g"),
            ]
        )
        assert counts(kept) == [2, 1]

    def test_a_minimum_is_forced_first_and_counts(self):
        kept = decide(
            [
                elements("a", [1.0, 2.0, 3.0, 4.0], ratio=0.5, global_group="g"),
                elements("b", [9.0, 8.0, 7.0, 6.0], ratio=0.5, global_group="g", minimum=0.5),
            ]
        )
        assert masked(kept) == [[True, True, False, False], [False, False, True, True]]

    def test_a_maximum_leaves_the_rest_of_the_budget_to_others(self):
        kept = decide(
            [
                elements("a", [1.0, 2.0, 3.0, 4.0], ratio=0.5, global_group="g", maximum=0.25),
                elements("b", [9.0, 8.0, 7.0, 6.0], ratio=0.5, global_group="g"),
            ]
        )
        assert counts(kept) == [1, 3]

    def test_maxima_below_the_ratio_hold(self):
        kept = decide(
            [
                elements(name, torch.arange(10.0), ratio=0.5, global_group="g", maximum=0.3)
                for name in "ab"
            ]
        )
        assert counts(kept) == [3, 3]

    def test_minima_above_the_ratio_hold(self):
        kept = decide(
            [
                elements(name, torch.arange(10.0), ratio=0.1, global_group="g", minimum=0.3)
                for name in "ab"
            ]
        )
        assert counts(kept) == [3, 3]

    def test_runs_compete_together_and_stay_equal(self):
        # 8 elements, budget 4: 2 of b, the pair of lowest (1 + 5) / 2 = 3 of a, 3.5 of b.
        kept = decide(
            [
                elements("a", [2, 1, 5, 6], ratio=0.5, global_group="g", internal_blocks=2),
                elements("b", [2.0, 3.5, 9.0, 9.5], ratio=0.5, global_group="g"),
            ]
        )
        assert masked(kept) == [[False, True, True, False], [True, True, False, False]]

    def test_members_of_different_float_types_compete(self):
        low = torch.tensor([1.0, 4.0], dtype=torch.float64)
        kept = decide(
            [
                Member(
                    name="a",
                    importance=low,
                    shape=(2,),
                    blocks=Blocks((1,)),
                    ratio=0.5,
                    global_group="g",
                ),
                elements("b", [2.0, 3.0], ratio=0.5, global_group="g"),
            ]
        )
        assert masked(kept) == [[True, False], [True, False]]


class TestDependency:
    def test_members_share_the_decision_of_their_mean(self):
        # Means: 3, 2.5, 3.5, 2.
        kept = decide(
            [
                rows("a", [1.0, 4.0, 2.0, 3.0], 4, ratio=0.5, dependency_group="d"),
                rows("b", [5.0, 1.0, 5.0, 1.0], 9, ratio=0.5, dependency_group="d"),
            ]
        )
        assert masked(kept) == [[False, True, False, True]] * 2

    def test_members_of_different_rank_share_by_flat_index(self):
        conv = Member(
            name="conv.weight",
            importance=torch.tensor([3.0, 1.0]).reshape(2, 1, 1, 1),
            shape=(2, 3, 3, 3),
            blocks=channel_blocks(4, 0),
            ratio=0.5,
            dependency_group="d",
        )
        kept = decide([conv, rows("fc.weight", [3.0, 1.0], 5, ratio=0.5, dependency_group="d")])
        assert [tuple(tensor.shape) for tensor in kept] == [(2, 1, 1, 1), (2, 1)]
        assert masked(kept) == [[False, True]] * 2

    def test_means_of_half_precision_are_taken_in_float32(self):
        # 257 and 256.5: in bfloat16 both are 256, and the first would be masked.
        kept = decide(
            [
                attrs.evolve(one, importance=one.importance.bfloat16())
                for one in (
                    rows("a", [512.0, 512.0], 4, ratio=0.5, dependency_group="d"),
                    rows("b", [2.0, 1.0], 4, ratio=0.5, dependency_group="d"),
                )
            ]
        )
        assert masked(kept) == [[False, True]] * 2

    def test_masks_of_members_share_no_memory(self):
        first, second = decide(
            [rows(name, [1.0, 2.0], 4, ratio=0.5, dependency_group="d") for name in "ab"]
        )
        first.fill_(False)
        assert second.any()

    def test_a_threshold_is_compared_with_the_mean(self):
        kept = decide(
            [
                rows("a", [1.0, 3.0], 4, threshold=2.5, dependency_group="d"),
                rows("b", [3.0, 2.0], 4, threshold=2.5, dependency_group="d"),
            ]
        )
        assert masked(kept) == [[True, False]] * 2

    def test_the_tightest_bounds_of_the_members_hold(self):
        values = torch.arange(10.0)
        kept = decide(
            [
                rows("a", values, 4, ratio=0.9, maximum=0.6, dependency_group="d"),
                rows("b", values, 4, ratio=0.9, maximum=0.4, dependency_group="d"),
            ]
        )
        assert counts(kept) == [4, 4]

    def test_runs_are_the_least_common_multiple(self):
        kept = decide(
            [
                rows("a", torch.arange(12.0), 4, ratio=0.5, internal_blocks=2, dependency_group=1),
                rows("b", torch.arange(12.0), 4, ratio=0.5, internal_blocks=3, dependency_group=1),
            ]
        )
        assert masked(kept)[0] == [True, False] * 6

    def test_a_member_without_ratio_follows_the_group(self):
        kept = decide(
            [
                rows("a", [1.0, 2.0], 4, ratio=0.5, dependency_group="d"),
                rows("b", [1.0, 2.0], 4, dependency_group="d"),
            ]
        )
        assert masked(kept) == [[True, False]] * 2

    def test_a_group_enters_a_global_ranking_as_one_member(self):
        # The pair (a, b) has means 1 and 5 and weighs 4 + 4 = 8 a decision; c weighs 4.
        kept = decide(
            [
                rows("a", [0.5, 5.0], 4, ratio=0.5, dependency_group="d", global_group="g"),
                rows("b", [1.5, 5.0], 4, ratio=0.5, dependency_group="d", global_group="g"),
                rows("c", [2.0, 3.0], 4, ratio=0.5, global_group="g"),
            ]
        )
        assert masked(kept) == [[True, False], [True, False], [True, False]]

    def test_different_numbers_of_blocks_are_an_error(self):
        with pytest.raises(PlanError) as caught:
            decide(
                [
                    rows("conv1.weight", [1.0, 2.0], 4, ratio=0.5, dependency_group="d"),
                    rows("conv2.weight", [1.0], 4, ratio=0.5, dependency_group="d"),
                ]
            )
        assert str(caught.value) == (
            "dependency group 'd' (conv1.weight, conv2.weight): members share one decision "
            f"per block, so they need {SAME_NUMBER_OF_BLOCKS}: conv1.weight has 2, "
            "conv2.weight has 1; change their granularity or their dependency_group_id"
        )

    def test_different_scopes_are_an_error(self):
        scoped = Member(
            name="b",
            importance=torch.zeros(2, 4),
            shape=(2, 4),
            blocks=Blocks((1, 1), scope=(1, 4), keep=2),
            dependency_group="d",
        )
        with pytest.raises(PlanError) as caught:
            decide([elements("a", torch.zeros(2, 4), ratio=0.5, dependency_group="d"), scoped])
        assert str(caught.value) == (
            f"dependency group 'd' (a, b): {ONE_DECISION}, {DIFFERENT_SCOPES}"
        )

    def test_two_of_four_is_shared_by_its_mean(self):
        blocks = Blocks((1, 1), scope=(1, 4), keep=2)
        kept = decide(
            [
                Member(
                    name=name,
                    importance=torch.tensor([values]),
                    shape=(1, 4),
                    blocks=blocks,
                    dependency_group="d",
                )
                for name, values in (("a", [1.0, 2.0, 3.0, 4.0]), ("b", [9.0, 0.0, 0.0, 0.0]))
            ]
        )
        # Means: 5, 1, 1.5, 2.
        assert masked(kept) == [[False, True, True, False]] * 2


@st.composite
def global_groups(draw):
    members = []
    for index in range(draw(st.integers(1, 4))):
        values = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
        width = draw(st.integers(1, 5))
        low, high = sorted(draw(st.tuples(st.integers(0, 10), st.integers(0, 10))))
        bounds = draw(st.sampled_from([(0, 10), (0, 10), (low, high)]))
        members.append((f"m{index}", values, width, bounds))
    return draw(st.integers(0, 10)), members


def share_by_sorting(ratio, members):
    """The slow definition: force the minima, bar the maxima, then sort and take what fits."""
    budget = math.floor(ratio * sum(len(values) * width for _, values, width, _ in members) / 10)
    taken, contest = set(), []
    for number, (_, values, width, (low, high)) in enumerate(members):
        order = sorted(range(len(values)), key=lambda index: (values[index], index))
        forced, allowed = low * len(values) // 10, high * len(values) // 10
        taken |= {(number, index) for index in order[:forced]}
        budget -= forced * width
        contest += [
            (values[index], number, index, width) for index in order[forced : max(allowed, forced)]
        ]
    for _, number, index, width in sorted(contest):
        budget -= width
        if budget < 0:
            break
        taken.add((number, index))
    return taken


@settings(deadline=None)
@given(global_groups())
def test_a_global_group_masks_what_sorting_would_mask(group):
    ratio, members = group
    kept = decide(
        [
            rows(
                name,
                values,
                width,
                ratio=ratio / 10,
                minimum=low / 10,
                maximum=high / 10,
                global_group="g",
            )
            for name, values, width, (low, high) in members
        ]
    )
    found = {
        (number, index)
        for number, mask in enumerate(masked(kept))
        for index, is_masked in enumerate(mask)
        if is_masked
    }
    assert found == share_by_sorting(ratio, members)
