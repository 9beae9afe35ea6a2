"""Targets that lost to another entry: rows made on demand, a sequence like any other."""

import pickle

import pytest
from torch import nn

import tersely
from tersely.contracts.target_plan import Origin
from tersely.planning.remarks import Shadowed
from tersely.planning.stages.shadows import Shadows

pytestmark = pytest.mark.usefixtures("toy_pruners")

FIRST, SECOND, THIRD = (Origin(f"pruning.config_list[{number}]") for number in range(3))
ROWS = (
    Shadowed("a", "weight", "pruning", FIRST, SECOND),
    Shadowed("b", "weight", "pruning", FIRST, SECOND),
    Shadowed("b", "bias", "pruning", SECOND, THIRD),
    Shadowed("c", "weight", "pruning", FIRST, THIRD),
)


def test_rows_come_back_as_they_were_added():
    shadows = Shadows(ROWS)
    assert len(shadows) == 4
    assert tuple(shadows) == ROWS
    assert [shadows[index] for index in range(-4, 4)] == [*ROWS, *ROWS]
    assert shadows[1:3] == ROWS[1:3]


def test_an_index_outside_is_an_index_error():
    with pytest.raises(IndexError):
        Shadows(ROWS)[4]


def test_a_sequence_of_rows_equals_the_tuple_of_them():
    assert Shadows(ROWS) == ROWS
    assert Shadows(ROWS) == Shadows(ROWS)
    assert hash(Shadows(ROWS)) == hash(ROWS)
    assert Shadows(ROWS) != ROWS[:3]
    assert Shadows() == ()
    assert not Shadows()


def test_rows_survive_pickling():
    assert pickle.loads(pickle.dumps(Shadows(ROWS))) == ROWS


def test_every_later_entry_is_told_of_each_target_it_loses():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    entries = [{"op_types": ["Linear"], "sparse_ratio": ratio} for ratio in (0.5, 0.4, 0.3)]
    with pytest.warns(UserWarning, match="8 configured twice"):
        plan = tersely.plan(model, {"pruning": {"algorithm": "toy", "config_list": entries}})
    found = [(one.module, one.target, one.winner.path, one.loser.path) for one in plan.shadowed]
    assert found == [
        (module, target, "pruning.config_list[0]", f"pruning.config_list[{loser}]")
        for loser in (1, 2)
        for module in ("0", "1")
        for target in ("weight", "bias")
    ]
    assert tersely.Plan.from_dict(plan.to_dict()).shadowed == plan.shadowed


def test_an_entry_that_loses_everything_is_still_told_what_does_not_fit():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(4, 2))
    entries = [
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
        {"op_types": ["Linear"], "sparse_ratio": 0.5, "granularity": [3, 1]},
    ]
    with pytest.raises(tersely.PlanError, match=r"config_list\[1\]: 0\.weight and 1 more: .*3"):
        tersely.plan(model, {"pruning": {"algorithm": "toy", "config_list": entries}})
