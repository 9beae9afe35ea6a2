"""The contracts, and numbers by hand."""

import pytest
import torch
from tersely_lamp.curve import cosine
from torch import nn

import tersely
from tersely.testing import PrunerContract, ScheduleContract, parametrize


@parametrize(PrunerContract("lamp"), ScheduleContract("cosine"))
def test_contract(check):
    check()


@pytest.fixture
def model():
    net = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0, -1.0, 3.0]]))
        net[1].weight.copy_(torch.tensor([[10.0], [-20.0]]))
    return net


def test_scores_are_shares_of_what_is_left(model):
    # 1 / 14, 4 / 13 and 9 / 9; 100 / 500 and 400 / 400: 1 and 10 go first.
    session = tersely.prune(
        model, [{"op_types": ["Linear"], "sparse_ratio": 0.4}], algorithm="lamp"
    )

    assert session.masks()["0"]["weight"].tolist() == [[True, False, True]]
    assert session.masks()["1"]["weight"].tolist() == [[False], [True]]


def test_no_layer_is_emptied_before_all_others_have_one_weight_left(model):
    # Magnitude would mask all three weights of the first layer before the second loses one.
    session = tersely.prune(
        model, [{"op_types": ["Linear"], "sparse_ratio": 0.6}], algorithm="lamp"
    )

    assert session.masks()["0"]["weight"].tolist() == [[False, False, True]]
    assert session.masks()["1"]["weight"].tolist() == [[False], [True]]


def test_half_of_the_way_half_of_the_sparsity_is_due():
    assert [cosine(one) for one in (0, 1 / 3, 0.5, 1)] == pytest.approx([0, 0.25, 0.5, 1])


def test_sparsity_follows_the_cosine(model):
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.6}
    schedule = {"name": "cosine", "every": 1, "times": 2}
    stage = {"algorithm": "lamp", "schedule": schedule, "config_list": [entry]}
    session = tersely.attach(model, {"pruning": stage})
    session.compress()
    counts = []
    for _ in range(2):
        session.step()
        counts.append(sum(int((~one["weight"]).sum()) for one in session.masks().values()))

    # 0.3 and 0.6 of five weights.
    assert counts == [1, 3]
