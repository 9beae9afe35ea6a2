"""What differs between a plan that was reviewed and the plan as it is now."""

import pytest
from torch import nn

import tersely
from tersely.planning.comparing import check_unchanged, plan_changes


def planned(*entries, width=4):
    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    return tersely.plan(
        model, {"pruning": {"algorithm": "element", "config_list": [dict(one) for one in entries]}}
    )


HALF = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
OTHER = {"op_names": ["2"], "target_names": ["weight"], "sparse_ratio": 0.5}


def test_the_same_recipe_on_the_same_shapes_changes_nothing():
    check_unchanged(planned(HALF), planned(HALF))


def test_another_place_of_the_same_entry_changes_nothing():
    assert not list(plan_changes(planned(HALF, OTHER), planned(OTHER, HALF)))


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (
            [HALF],
            [{**HALF, "sparse_ratio": 0.25}],
            ["0.weight: sparse_ratio was 0.5, now it is 0.25"],
        ),
        ([HALF, OTHER], [HALF], ["2.weight was planned for pruning and no longer is"]),
        ([HALF], [HALF, OTHER], ["2.weight was not planned for pruning and now is"]),
    ],
)
def test_each_target_that_differs_is_named(before, after, changes):
    assert list(plan_changes(planned(*before), planned(*after))) == changes


def test_another_shape_is_another_plan():
    assert list(plan_changes(planned(HALF), planned(HALF, width=8))) == [
        "0.weight: shape was [4, 4], now it is [8, 4]"
    ]


def test_all_changes_are_one_error():
    with pytest.raises(tersely.PlanError) as caught:
        check_unchanged(planned(HALF), planned(OTHER))

    assert len(caught.value.problems) == 2


def test_a_shape_that_two_stages_share_is_told_once():
    def staged(width):
        model = nn.Sequential(nn.Linear(4, width))
        stage = {"algorithm": "element", "config_list": [HALF]}
        return tersely.plan(model, {"stages": [{"until": 1, "pruning": stage}, {"pruning": stage}]})

    with pytest.raises(tersely.PlanError) as caught:
        check_unchanged(staged(4), staged(8))

    assert len(caught.value.problems) == 1


def scheduled(**stage):
    entry = {**HALF, "op_names": ["0"]}
    model = nn.Sequential(nn.Linear(4, 4))
    return tersely.plan(
        model, {"pruning": {"algorithm": "element", "config_list": [entry], **stage}}
    )


def test_what_a_stage_says_beside_its_entries_is_part_of_the_plan():
    assert list(plan_changes(scheduled(), scheduled(unreached="dense", hold="step"))) == [
        "pruning: unreached was error, now it is dense",
        "pruning: hold was read, now it is step",
    ]


def altered(key, value):
    data = planned(HALF).to_dict()
    data["targets"][0][key] = value
    return tersely.Plan.from_dict(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [("output_dim", 1), ("input_dim", 0), ("channel_dim", 0), ("groups", 2), ("module_type", "X")],
)
def test_everything_that_decides_what_happens_to_a_target_is_compared(key, value):
    (change,) = plan_changes(altered(key, value), planned(HALF))
    assert f"{key} was {value}, now it is" in change


def test_a_target_that_a_plan_holds_twice_is_damage():
    data = planned(HALF).to_dict()
    data["targets"] *= 2

    with pytest.raises(tersely.PlanError, match=r"targets\[1\] is the same target as targets\[0\]"):
        tersely.Plan.from_dict(data)
