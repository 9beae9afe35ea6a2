"""Schedules through step(): when updates come and how far they go (rule O2)."""

import pytest
import torch
from torch import nn

import tersely


def recipe(schedule, algorithm="toy", **setting):
    setting = setting or {"sparse_ratio": 0.8}
    entry = {"op_types": ["Linear"], "target_names": ["weight"], **setting}
    return {"pruning": {"algorithm": algorithm, "schedule": schedule, "config_list": [entry]}}


@pytest.fixture
def model(toy_pruners):
    """One linear layer with the weights 1 to 100."""
    layer = nn.Linear(10, 10, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 101.0).view(10, 10))
    return nn.Sequential(layer)


def masked(session):
    return int((~session.masks()["0"]["weight"]).sum())


def run(session, steps):
    session.compress()
    counts = [masked(session)]
    for _ in range(steps):
        session.step()
        counts.append(masked(session))
    return counts


def test_the_ratio_grows_with_each_update_and_then_stays(model):
    session = tersely.attach(model, recipe({"name": "toy_line", "every": 1, "times": 4}))
    assert run(session, 6) == [0, 20, 40, 60, 80, 80, 80]


def test_updates_come_every_so_many_steps(model):
    session = tersely.attach(model, recipe({"name": "toy_line", "every": 3, "times": 2}))
    assert run(session, 7) == [0, 0, 0, 40, 40, 40, 80, 80]


def test_updates_begin_after_so_many_steps(model):
    schedule = {"name": "toy_line", "begin": 2, "every": 2, "times": 2}
    session = tersely.attach(model, recipe(schedule))
    assert run(session, 7) == [0, 0, 0, 0, 40, 40, 80, 80]


def test_a_third_of_three_tenths_is_exactly_a_tenth(model):
    schedule = {"name": "toy_line", "every": 1, "times": 3}
    session = tersely.attach(model, recipe(schedule, sparse_ratio=0.3))
    assert run(session, 3) == [0, 10, 20, 30]


def test_a_threshold_grows_too(model):
    schedule = {"name": "toy_line", "every": 1, "times": 2}
    session = tersely.attach(model, recipe(schedule, sparse_threshold=50.5))
    assert run(session, 2) == [0, 25, 50]


def test_bounds_grow_too(model):
    schedule = {"name": "toy_line", "every": 1, "times": 2}
    bounds = {"sparse_threshold": 1000.0, "max_sparse_ratio": 0.6}
    session = tersely.attach(model, recipe(schedule, **bounds))
    assert run(session, 2) == [0, 30, 60]
    session.detach()
    bounds = {"sparse_threshold": 0.0, "min_sparse_ratio": 0.4}
    session = tersely.attach(model, recipe(schedule, **bounds))
    assert run(session, 2) == [0, 20, 40]


def test_the_curve_is_the_schedules(model, odd):
    odd.curve = lambda progress: progress**2
    session = tersely.attach(model, recipe({"name": "toy_curve", "every": 1, "times": 2}))
    assert run(session, 2) == [0, 20, 80]


def test_each_update_ranks_the_weights_as_they_are_then(model):
    session = tersely.attach(model, recipe({"name": "toy_line", "every": 1, "times": 2}))
    session.compress()
    session.step()
    with torch.no_grad():
        model._modules["0"]._parameters["weight"].copy_(torch.arange(100.0, 0.0, -1.0).view(10, 10))
    session.step()
    assert session.masks()["0"]["weight"].flatten().nonzero().flatten().tolist() == list(range(20))


def test_the_history_has_an_entry_for_each_update(model):
    session = tersely.attach(model, recipe({"name": "toy_line", "every": 2, "times": 2}))
    run(session, 5)
    assert session.history == [
        {"step": 0, "event": "compress", "sparsity": 0.0},
        {"step": 2, "event": "step", "sparsity": 0.4},
        {"step": 4, "event": "step", "sparsity": 0.8},
    ]


def test_an_update_that_fails_moves_neither_the_clock_nor_the_masks(model, odd):
    session = tersely.attach(model, recipe({"name": "toy_line", "every": 1, "times": 2}, "toy_odd"))
    session.compress()
    session.step()
    odd.score = lambda target: target.tensor * torch.nan
    with pytest.raises(tersely.CalibrationError):
        session.step()
    assert (session.steps, masked(session), len(session.history)) == (1, 40, 2)
    odd.score = lambda target: target.tensor
    session.step()
    assert (session.steps, masked(session)) == (2, 80)


def test_compressing_again_keeps_the_place_in_the_schedule(model):
    session = tersely.attach(model, recipe({"name": "toy_line", "every": 1, "times": 2}))
    run(session, 1)
    session.compress()
    assert masked(session) == 40


def test_only_the_stage_that_is_due_is_decided_anew(toy_pruners):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    entry = {"sparse_ratio": 0.5}
    stages = [
        {
            "algorithm": "toy_rows",
            "schedule": {"name": "toy_line", "every": 1, "times": 1},
            "config_list": [{"op_names": ["0"], **entry}],
        },
        {"algorithm": "toy_rows", "config_list": [{"op_names": ["1"], **entry}]},
    ]
    session = tersely.attach(model, {"pruning": stages})
    session.compress()
    before = session.masks()["1"]
    with torch.no_grad():
        for layer in model:
            layer._parameters["weight"].copy_(torch.randn(4, 4))
    session.step()
    assert session.sparsity() == {name: {"weight": 0.5, "bias": 0.5} for name in "01"}
    for target, mask in before.items():
        assert torch.equal(session.masks()["1"][target], mask)


def test_what_is_aligned_follows_each_update(toy_pruners):
    model = nn.Sequential(nn.Linear(4, 4))
    stage = {
        "algorithm": "toy_rows",
        "schedule": {"name": "toy_line", "every": 1, "times": 2},
        "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}],
    }
    session = tersely.attach(model, {"pruning": stage})
    session.compress()
    for expected in (0.25, 0.5):
        session.step()
        assert session.sparsity()["0"] == {"weight": expected, "bias": expected}


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        (
            lambda progress: 1.5,
            "the schedule toy_curve returned 1.5 at progress 0; expected a share in [0, 1]",
        ),
        (
            lambda progress: float("nan"),
            "the schedule toy_curve returned nan at progress 0; expected a share in [0, 1]",
        ),
        (
            lambda progress: 1 / progress,
            "the schedule toy_curve failed at progress 0: ZeroDivisionError: Fraction(1, 0)",
        ),
    ],
    ids=["too_large", "not_a_number", "raises"],
)
def test_a_schedule_that_misbehaves_is_named(model, odd, curve, message):
    odd.curve = curve
    session = tersely.attach(model, recipe({"name": "toy_curve", "every": 1, "times": 2}))
    with pytest.raises(tersely.PluginError) as caught:
        session.compress()
    assert str(caught.value) == message
    assert session.masks() == {}
