"""Pruners of papers: numbers by hand."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("papers")
X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def layer(values):
    weight = torch.tensor(values)
    found = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        found.weight.copy_(weight)
    return found


def entry(**keys):
    return {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5, **keys}


def attached(model, algorithm, options=None, schedule=None, **keys):
    stage = {"algorithm": algorithm, "options": options or {}, "config_list": [entry(**keys)]}
    if schedule is not None:
        stage["schedule"] = schedule
    return tersely.attach(model, {"pruning": stage})


def kept(session):
    return session.masks()[""]["weight"].int().tolist()


def trained(session, target, steps=1):
    optimizer = torch.optim.SGD(session.model.parameters(), lr=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (session.model(X) - target).square().sum() / 2
        session.total_loss(loss).backward()
        optimizer.step()
        session.step()


def test_grasp_keeps_what_the_flow_of_gradients_needs():
    session = attached(layer([[1.0, 2.0]]), "grasp")

    trained(session, torch.tensor([[4.0], [10.0]]))
    session.compress()

    # The Hessian is X'X = [[10, 14], [14, 20]], the residuals are 1 and 1, so the gradient is
    # (4, 6), Hg = (124, 176) and the scores are 124 and 352.
    assert kept(session) == [[0, 1]]


def test_fisher_counts_the_squared_gradient_times_the_squared_weight():
    session = attached(layer([[2.0, 1.0]]), "fisher")

    trained(session, torch.tensor([[3.0], [9.0]]))
    session.compress()

    # The residuals are 1 and 1, the gradient is (4, 6), the scores are 16 * 4 / 2 and 36 / 2.
    assert kept(session) == [[1, 0]]


def test_sparse_evolution_exchanges_the_smallest_of_the_kept_weights():
    torch.manual_seed(0)
    schedule = {"name": "one_cycle", "begin": 0, "every": 1, "times": 2}
    session = attached(nn.Linear(2, 50, bias=False), "sparse_evolution", schedule=schedule)
    session.compress()
    trained(session, torch.zeros(2, 50))
    before, magnitude = session.masks()[""]["weight"], session.model.weight.detach().abs()

    trained(session, torch.zeros(2, 50))
    after = session.masks()[""]["weight"]

    # Of those that were kept seven tenths stay, and they are the largest.
    stays = before & after
    assert int(stays.sum()) == int(before.sum()) - math.floor(0.3 * int(before.sum()))
    assert bool(magnitude[stays].min() > magnitude[before & ~after].max())
    assert int(after.sum()) == 50


def test_a_soft_threshold_takes_its_part_of_every_magnitude():
    session = attached(
        layer([[0.3, -0.9]]),
        "soft_threshold",
        {"initial": 0.0},
        sparse_ratio=None,
        sparse_threshold=0,
    )
    before = session.model.weight.tolist()
    session.compress()

    # sigmoid(0) is 0.5, so 0.3 becomes 0 and -0.9 becomes -0.4.
    assert before == [[0.0, pytest.approx(-0.4)]]
    assert kept(session) == [[0, 1]]


def test_what_does_not_fluctuate_is_not_needed():
    inputs = torch.tensor([[5.0, 1.0], [5.0, 2.0], [5.0, 3.0]])

    session = tersely.prune(layer([[9.0, 1.0]]), [entry()], algorithm="fluctuation", data=[inputs])

    # The first input is 5 in every row, so its variance is 0, and the second has one of 1.
    assert kept(session) == [[0, 1]]


def test_admm_finds_the_least_squares_of_the_kept_weights():
    inputs = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    model = layer([[2.0, 1.0]])
    options = {"iterations": 200, "damping": 1e-6}

    session = tersely.prune(model, [entry()], algorithm="admm", options=options, data=[inputs])

    # The outputs were 3, 2 and 1; with the first column alone they fit best with (3 + 2) / 2.
    assert kept(session) == [[1, 0]]
    assert session.model.weight.tolist() == [[pytest.approx(2.5, abs=1e-3), 0.0]]


def test_a_filter_whose_maps_have_a_low_rank_goes_first():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
    data = [torch.eye(3).view(1, 1, 3, 3)]
    wanted = {"op_types": ["Conv2d"], "target_names": ["weight"], "sparse_ratio": 0.5}

    session = tersely.prune(model, [wanted], algorithm="rank_of_maps", data=data)

    # The maps are the identity, of rank 3, and zero, of rank 0.
    assert session.masks()["0"]["weight"].flatten().tolist() == [True, False]


def test_a_channel_that_others_repeat_goes_first():
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False))
    with torch.no_grad():
        weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        model[0].weight.copy_(weight.view(3, 2, 1, 1))
    data = [torch.tensor([[3.0, 0.0], [0.0, 3.0]]).view(1, 2, 1, 2)]
    wanted = {"op_types": ["Conv2d"], "target_names": ["weight"], "sparse_ratio": 0.34}

    session = tersely.prune(model, [wanted], algorithm="independence", data=data)

    # The maps are (3, 0), (3, 0) and (0, 3), whose nuclear norm is 3 * sqrt(2) + 3. It loses
    # 3 * sqrt(2) - 3 without one of the first two, and 3 without the last.
    assert session.masks()["0"]["weight"][:, 0, 0, 0].tolist() == [False, True, True]


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [[0, 1]]), (100.0, [[1, 0]])])
def test_regional_gradients_count_as_alpha_says(alpha, expected):
    model = nn.Sequential(nn.Sequential(layer([[1.0, 1.0]]), nn.ReLU()))
    inputs = torch.tensor([[2.0, 0.0], [0.0, -3.0]])
    options = {"alpha": alpha}

    session = tersely.prune(model, [entry()], algorithm="regional", options=options, data=[inputs])

    # The inputs have norms 2 and 3. The region returns 2 and 0, and the gradient of its norm is
    # (2, 0), as the ReLU stops the second.
    assert session.masks()["0.0"]["weight"].int().tolist() == expected


def test_one_cycle_is_half_way_where_its_sigmoid_is():
    one_cycle = tersely.registry().schedules["one_cycle"]

    # At t = 5 / 14 the sigmoid is a half; 1 + e^-9 is what it is measured in.
    assert one_cycle(Fraction(5, 14)) == pytest.approx((1 + math.exp(-9)) / 2)
    assert (one_cycle(0), one_cycle(1)) == (0, 1)


def test_every_bank_loses_the_same_share():
    weight = [[1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0]]
    granularity = {"balanced_banks": {"length": 4}}

    session = tersely.prune(
        layer(weight), [entry(granularity=granularity)], algorithm="sparse_evolution"
    )

    assert session.masks()[""]["weight"].view(2, 4).sum(1).tolist() == [2, 2]
