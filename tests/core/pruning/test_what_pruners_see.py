"""What a pruner is shown of a target beside its values: the mask in force, and the ratio due."""

from fractions import Fraction

import pytest
import torch
from torch import nn

import tersely

SEEN = []
PROGRESS = []


class Watching:
    def importance(self, target):
        SEEN.append((target.name, target.mask, target.due))
        PROGRESS.append(target.progress)
        return target.tensor.detach().abs()


class Rows:
    def blocks(self, shape, target):
        return tersely.Blocks((1, -1))


class Planes:
    def blocks(self, shape, target):
        return tersely.Blocks((1, 1, -1, -1))


class Face:
    @tersely.hookimpl
    def tersely_granularities(self):
        return [
            tersely.GranularityInfo(name=name, implementation=f"{__name__}:{cls}")
            for name, cls in (("whole_rows", "Rows"), ("whole_planes", "Planes"))
        ]

    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(
                name=name, implementation=f"{__name__}:Watching", default_scope=scope
            )
            for name, scope in (("watching", "target"), ("watching_all", "global"))
        ]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [tersely.ScheduleInfo(name="even", implementation=f"{__name__}:even")]


def even(progress):
    return progress


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="watchers")
    SEEN.clear()
    PROGRESS.clear()
    yield
    tersely.registry().unregister("watchers")


def model():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        net[1].weight.copy_(torch.tensor([[2.5, 6.0], [7.0, 8.0]]))
    return net


def stage(algorithm="watching", **keys):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5, **keys}
    return {"algorithm": algorithm, "config_list": [entry]}


def test_before_the_first_mask_there_is_none():
    tersely.attach(model(), {"pruning": stage()}).compress()

    assert [mask for _, mask, _ in SEEN] == [None, None]


def test_the_mask_in_force_has_the_shape_of_the_tensor():
    session = tersely.attach(model(), {"pruning": stage(granularity="whole_rows")})
    session.compress()
    SEEN.clear()
    session.compress()

    expected = torch.tensor([[False, False], [True, True]])
    assert [mask.tolist() for _, mask, _ in SEEN] == [expected.tolist()] * 2


@pytest.mark.parametrize("target", ["_input_", "_output_"])
def test_the_mask_of_an_input_or_output_has_the_shape_of_one_sample(target):
    entry = {"op_names": ["0"], "target_names": [target], "sparse_ratio": 0.5}
    recipe = {"pruning": {"algorithm": "watching", "config_list": [entry]}}
    session = tersely.attach(model(), recipe)
    session.calibrate([torch.tensor([[1.0, 3.0]])])
    session.compress()
    session.compress()

    # The outputs are 7 and 15, the inputs 1 and 3.
    before, after = [mask for _, mask, _ in SEEN]
    assert before is None
    assert after.tolist() == [False, True]


def test_the_mask_of_channels_that_is_in_force_has_the_shape_of_one_sample():
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([3.0, 2.0]).view(2, 1, 1, 1))
    entry = {"op_types": ["Conv2d"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    entry["granularity"] = "whole_planes"
    session = tersely.attach(net, {"pruning": {"algorithm": "watching", "config_list": [entry]}})
    session.calibrate([torch.ones(1, 1, 2, 2)])
    session.compress()
    session.compress()

    assert SEEN[-1][1].tolist() == [[[True, True], [True, True]], [[False, False], [False, False]]]


def test_the_ratio_that_is_due_follows_the_schedule():
    schedule = {"name": "even", "every": 1, "times": 2}
    session = tersely.attach(model(), {"pruning": {**stage(), "schedule": schedule}})
    session.compress()
    session.step()
    session.step()

    assert [due for name, _, due in SEEN if name == "0.weight"] == [Fraction(1, 4), 0.5]


def test_the_progress_is_the_share_of_the_updates_that_were_made():
    schedule = {"name": "even", "every": 2, "times": 3}
    session = tersely.attach(model(), {"pruning": {**stage(), "schedule": schedule}})
    session.compress()
    for _ in range(4):
        session.step()

    assert [Fraction(1, 3)] * 2 + [Fraction(2, 3)] * 2 == PROGRESS


def test_without_a_schedule_there_is_no_progress():
    tersely.attach(model(), {"pruning": stage()}).compress()

    assert PROGRESS == [None, None]


def test_under_a_threshold_no_ratio_is_due():
    keys = {"sparse_ratio": None, "sparse_threshold": 2.5}
    tersely.attach(model(), {"pruning": stage(**keys)}).compress()

    assert [due for _, _, due in SEEN] == [None, None]


def test_targets_share_no_budget_by_default():
    session = tersely.attach(model(), {"pruning": stage()})
    session.compress()

    assert [share["weight"] for share in session.sparsity().values()] == [0.5, 0.5]


def test_an_algorithm_may_share_one_budget_among_all_its_targets_by_default():
    session = tersely.attach(model(), {"pruning": stage("watching_all")})
    session.compress()

    assert [share["weight"] for share in session.sparsity().values()] == [0.75, 0.25]


def test_a_group_of_the_config_goes_before_the_default_scope():
    config = [
        {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5, "global_group_id": 1},
        {"op_names": ["1"], "target_names": ["weight"], "sparse_ratio": 0.5, "global_group_id": 2},
    ]
    recipe = {"pruning": {"algorithm": "watching_all", "config_list": config}}
    session = tersely.attach(model(), recipe)
    session.compress()

    assert [share["weight"] for share in session.sparsity().values()] == [0.5, 0.5]


def test_targets_of_other_ratios_have_a_budget_of_their_own():
    config = [
        {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.25},
        {"op_names": ["1"], "target_names": ["weight"], "sparse_ratio": 0.5},
    ]
    recipe = {"pruning": {"algorithm": "watching_all", "config_list": config}}
    session = tersely.attach(model(), recipe)
    session.compress()

    assert [share["weight"] for share in session.sparsity().values()] == [0.25, 0.5]
