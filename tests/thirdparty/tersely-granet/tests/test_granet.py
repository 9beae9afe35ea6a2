"""The contracts, and updates by hand.

The layer has the weights 1 to 6 in two rows, and the loss is ``(model(x) * C).sum()`` for one row x,
so the gradient of weight (i, j) is C[i] * x[j]: [[6, 2, 4], [3, 1, 2]].
"""

import pytest
import torch
from tersely_granet.regrowing import RigL
from torch import nn

import tersely
from tersely.testing import PrunerContract, ScheduleContract, parametrize

X = torch.tensor([[3.0, 1.0, 2.0]])
C = torch.tensor([2.0, 1.0])


@parametrize(PrunerContract("rigl"), PrunerContract("granet"), ScheduleContract("constant"))
def test_contract(check):
    check()


@pytest.fixture
def model():
    net = nn.Sequential(nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.arange(1.0, 7.0).view(2, 3))
    return net


def attached(model, algorithm, *, schedule, times=2, hold="read", **options):
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    stage = {"algorithm": algorithm, "options": options, "hold": hold, "config_list": [entry]}
    stage["schedule"] = {"name": schedule, "every": 1, "times": times}
    session = tersely.attach(model, {"pruning": stage})
    session.compress()
    return session


def step(model, session):
    model.zero_grad()
    (model(X) * C).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    session.step()
    return session.masks()["0"]["weight"].tolist()


@pytest.mark.parametrize("hold", ["read", "step"])
def test_rigl_exchanges_the_smallest_weight_for_the_largest_gradient(model, hold):
    session = attached(model, "rigl", schedule="constant", hold=hold, share=0.8)
    session.set_masks({"0": {"weight": torch.tensor([[False] * 3, [True] * 3])}})

    # Half of the schedule is left after this update: 0.4 of 3 is one weight. 4 goes, now 3.7, and
    # 1 comes back, whose gradient of 6 is the largest, as zero.
    assert step(model, session) == [[True, False, False], [False, True, True]]
    assert torch.allclose(model[0].weight, torch.tensor([[0.0, 0, 0], [0, 4.9, 5.8]]))


def test_rigl_exchanges_nothing_at_its_end(model):
    session = attached(model, "rigl", schedule="constant", times=1)
    before = session.masks()["0"]["weight"].tolist()

    assert step(model, session) == before


def test_rigl_begins_with_random_masks_of_the_whole_sparsity(model):
    session = attached(model, "rigl", schedule="constant")

    assert int(session.masks()["0"]["weight"].sum()) == 3


def test_the_share_decays_along_a_cosine():
    # The paper's alpha of 0.3: all of it at first, half of it half of the way, none at the end.
    shares = [RigL().share_at(progress) for progress in (0, 0.5, 1)]

    assert shares == pytest.approx([0.3, 0.15, 0])


def test_granet_prunes_more_with_every_update_and_lets_weights_come_back(model):
    session = attached(model, "granet", schedule="even", share=0.8)

    # One of 6 is due; of the other 5 a share of 0.4 is exchanged, two: 4, 5 and 6 stay, and the
    # gradients of 1 and 3, 6 and 4, are the largest. At the end three are due and none is exchanged.
    assert step(model, session) == [[True, False, True], [True, True, True]]
    assert step(model, session) == [[False, False, False], [True, True, True]]


@pytest.fixture(autouse=True)
def _even():
    class Face:
        @tersely.hookimpl
        def tersely_schedules(self):
            return [tersely.ScheduleInfo(name="even", implementation="fractions:Fraction")]

    tersely.registry().register(Face(), name="even")
    yield
    tersely.registry().unregister("even")
