"""Groups of targets: what their members must have in common."""

import pytest
from messages.planning import (
    COUNTS_IN_SCOPES,
    DIFFERENT_SCOPES,
    EQUAL_RATIOS,
    KEPT_AMONG_NEIGHBOURS,
    NO_MEANING,
    ONE_DECISION,
    REMOVE_ONE,
    SAME_NUMBER_OF_BLOCKS,
    SAME_POSITIONS,
)
from torch import nn

import tersely


@pytest.fixture
def member():
    def member(name, **keys):
        return {"op_names": [name], "target_names": ["weight"], **keys}

    return member


@pytest.fixture
def together(member):
    return lambda name, **keys: member(name, dependency_group_id="a", **keys)


@pytest.fixture
def competing(member):
    return lambda name, **keys: member(name, global_group_id=1, **keys)


def test_members_of_a_global_group_share_one_ratio(problems, linears, competing):
    found = problems(
        linears(2), competing("0", sparse_ratio=0.5), competing("1", sparse_ratio=0.25)
    )

    assert found == [
        "global_group_id 1: its members must have one sparse_ratio, found 0.5 (0.weight), 0.25 "
        "(1.weight)"
    ]


def test_a_ratio_of_one_and_of_one_point_zero_are_one(make, linears, competing):
    entries = competing("0", sparse_ratio=1), competing("1", sparse_ratio=1.0)

    assert len(make(linears(2), *entries)) == 2


def test_every_member_of_a_global_group_needs_the_ratio(problems, linears, competing):
    entries = competing("0", sparse_ratio=0.5), competing("1"), competing("2")

    assert problems(linears(3), *entries) == [
        "global_group_id 1: every member needs the group's sparse_ratio, found none on 1.weight and "
        "1 more"
    ]


def test_a_threshold_has_no_place_in_a_global_group(problems, linears, competing):
    entries = competing("0", sparse_ratio=0.5), competing("1", sparse_threshold=0.1)

    assert problems(linears(2), *entries) == [
        "global_group_id 1: its members share one sparse_ratio, so the sparse_threshold of 1.weight "
        "has no place in it; write sparse_ratio or leave the group out"
    ]


def test_a_number_and_its_text_are_two_groups(make, linears, member):
    entries = [
        member("0", global_group_id=1, sparse_ratio=0.5),
        member("1", global_group_id="1", sparse_ratio=0.25),
    ]

    assert len(make(linears(2), *entries)) == 2


def test_members_of_a_group_are_in_one_stage(linears, competing):
    stages = [
        {"algorithm": algorithm, "config_list": [competing(name, sparse_ratio=0.5)]}
        for algorithm, name in (("element", "0"), ("channel", "1"))
    ]
    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(linears(2), {"pruning": stages})

    assert str(caught.value) == (
        "global_group_id 1: its members must be in one stage, 0.weight and 1.weight are not; "
        "importances of two algorithms cannot be compared"
    )


def test_what_follows_a_member_is_no_member(make):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3))
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5, "dependency_group_id": "a"}

    assert len(make(model, entry)) == 4


def test_members_that_depend_share_one_ratio(problems, linears, together):
    entries = together("0", sparse_ratio=0.5), together("1", sparse_ratio=0.25)

    assert problems(linears(2), *entries) == [
        "dependency_group_id 'a': its members must have one sparse_ratio, found 0.5 (0.weight), "
        "0.25 (1.weight)"
    ]


def test_members_that_depend_share_one_threshold(problems, linears, together):
    entries = together("0", sparse_threshold=0.5), together("1", sparse_threshold=0.25)

    assert problems(linears(2), *entries) == [
        "dependency_group_id 'a': its members must have one sparse_threshold, found 0.5 (0.weight), "
        "0.25 (1.weight)"
    ]


def test_a_ratio_and_a_threshold_cannot_depend_on_each_other(problems, linears, together):
    entries = together("0", sparse_ratio=0.5), together("1", sparse_threshold=0.25)

    assert problems(linears(2), *entries) == [
        (
            f"dependency_group_id 'a': {ONE_DECISION}, found sparse_ratio (0.weight) and "
            "sparse_threshold (1.weight); write one of them"
        )
    ]


def test_what_one_member_states_holds_for_those_that_state_nothing(make, linears, together):
    assert len(make(linears(2), together("0", sparse_ratio=0.5), together("1"))) == 2


def test_a_member_that_depends_lends_its_ratio_to_a_global_group(
    make, linears, together, competing
):
    entries = [
        together("0", global_group_id=1, sparse_ratio=0.5),
        together("1", global_group_id=1),
        competing("2", sparse_ratio=0.5),
    ]

    assert len(make(linears(3), *entries)) == 3


def test_bounds_that_contradict_each_other_are_an_error(problems, linears, together):
    entries = [
        together("0", sparse_ratio=0.5, max_sparse_ratio=0.25),
        together("1", min_sparse_ratio=0.375),
    ]

    assert problems(linears(2), *entries) == [
        "dependency_group_id 'a': min_sparse_ratio 0.375 (1.weight) is larger than max_sparse_ratio "
        "0.25 (0.weight), and both hold for all members"
    ]


def test_all_or_none_of_those_that_depend_are_in_a_global_group(problems, linears, together):
    entries = together("0", sparse_ratio=0.5, global_group_id="g"), together("1"), together("2")

    assert problems(linears(3), *entries) == [
        "dependency_group_id 'a': other members are in global_group_id 'g', found none on 1.weight "
        "and 1 more; give it to all of them or to none"
    ]


def test_those_that_depend_are_in_one_global_group(problems, linears, together):
    entries = [
        together("0", sparse_ratio=0.5, global_group_id="g"),
        together("1", sparse_ratio=0.5, global_group_id="h"),
    ]

    assert problems(linears(2), *entries) == [
        "dependency_group_id 'a': its members must have one global_group_id, found 'g' (0.weight), "
        "'h' (1.weight)"
    ]


def test_those_that_depend_have_the_same_number_of_blocks(problems, together):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 4))
    entries = together("0", sparse_ratio=0.5), together("1")

    assert problems(model, *entries, algorithm="channel") == [
        (
            f"dependency_group_id 'a': its members must have {SAME_NUMBER_OF_BLOCKS}, found 3 "
            f"(0.weight), 4 (1.weight); they {SAME_POSITIONS}"
        )
    ]


def test_blocks_of_different_shapes_may_depend(make, together):
    model = nn.Sequential(nn.Linear(2, 4), nn.Conv2d(2, 4, 3))
    entries = together("0", sparse_ratio=0.5), together("1")

    assert len(make(model, *entries, algorithm="channel")) == 2


def test_a_group_that_asks_for_nothing_gives_a_hint(make, linears, together):
    plan = make(linears(2), together("0"), together("1"))

    assert plan.hints == (
        "dependency_group_id 'a': no member has a sparse_ratio or sparse_threshold, so nothing of "
        "0.weight and 1 more will be masked",
    )


@pytest.mark.parametrize(
    "key", [{"dependency_group_id": "a"}, {"global_group_id": "a"}, {"sparse_threshold": 0.5}]
)
def test_a_pattern_of_neighbours_excludes_other_budgets(problems, linears, member, key):
    assert problems(linears(1), member("0", granularity="2:4", **key))[-1] == (
        f"pruning.config_list[0]: 0.weight: granularity '2:4' {KEPT_AMONG_NEIGHBOURS}, so "
        f"{next(iter(key))!r} {NO_MEANING}"
    )


def test_a_pattern_of_neighbours_excludes_another_ratio(problems, linears, member):
    assert problems(linears(1), member("0", granularity="1:4", sparse_ratio=0.5)) == [
        (
            "pruning.config_list[0]: 0.weight: granularity '1:4' masks exactly 0.75, but "
            f"sparse_ratio is 0.5; {EQUAL_RATIOS}"
        )
    ]


def test_a_pattern_of_neighbours_may_state_its_own_ratio(make, linears, member):
    assert len(make(linears(1), member("0", granularity="1:4", sparse_ratio=0.75))) == 1


def test_runs_that_do_not_divide_the_blocks_are_an_error(problems, linears):
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5, "internal_metric_block": 3}

    assert problems(linears(2), entry, algorithm="channel") == [
        "pruning.config_list[0]: 0.weight and 1 more: internal_metric_block 3 does not divide its 4 "
        "blocks into equal runs"
    ]


def test_runs_exclude_scopes(problems, linears, member):
    assert problems(linears(1), member("0", granularity="2:4", internal_metric_block=2)) == [
        (
            "pruning.config_list[0]: 0.weight: internal_metric_block 2 has no meaning with "
            f"granularity '2:4', which {COUNTS_IN_SCOPES} of its own; {REMOVE_ONE}"
        )
    ]


@pytest.mark.parametrize("keys", [{}, {"min_sparse_ratio": 0.5}, {"max_sparse_ratio": 0.5}])
def test_a_target_that_asks_for_nothing_gives_a_hint(make, linears, keys):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], **keys}

    assert make(linears(3), entry).hints == (
        "pruning.config_list[0]: 0.weight and 2 more: no sparse_ratio, sparse_threshold or align, "
        "so nothing of it will be masked",
    )


def test_a_pattern_of_neighbours_asks_for_enough(make, linears, member):
    assert make(linears(1), member("0", granularity="2:4")).hints == ()


def test_those_that_depend_count_their_ratio_in_the_same_scopes(
    problems, linears, together, member
):
    entries = together("0", sparse_ratio=0.5), {**together("1"), "granularity": "2:4"}

    assert problems(linears(2), *entries)[-2:] == [
        f"dependency_group_id 'a': {ONE_DECISION}, {DIFFERENT_SCOPES}",
        (
            f"pruning.config_list[1]: 1.weight: granularity '2:4' {KEPT_AMONG_NEIGHBOURS}, so "
            f"'dependency_group_id' {NO_MEANING}"
        ),
    ]


def test_runs_of_those_that_depend_divide_their_blocks_together(problems, together):
    model = nn.Sequential(nn.Linear(2, 12), nn.Linear(2, 12))
    entries = (
        {**together("0", sparse_ratio=0.5), "internal_metric_block": 8},
        {**together("1"), "internal_metric_block": 3},
    )

    assert problems(model, *entries, algorithm="channel")[0] == (
        "dependency_group_id 'a': its members meet their ratio in 24 runs together (the least common "
        "multiple of internal_metric_block), which do not divide the 12 blocks of 0.weight into "
        "equal runs"
    )
