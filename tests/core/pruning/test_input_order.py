"""Pruners that put inputs in another order: in which masks are cut, checked, saved and reported.

The weight is [[4, 3, 2, 1], [1, 2, 3, 4]], and ``pairs`` keeps one of every two inputs. In the order
0, 2, 1, 3 the pairs are (0, 2) and (1, 3).
"""

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import OrdersInputs, Solves

ORDER = [0, 2, 1, 3]
OWN = [[True, False, True, False], [False, True, False, True]]
ORDERED = [[True, True, False, False], [False, False, True, True]]

ANSWER = {}


@pytest.fixture(autouse=True)
def _answer():
    ANSWER.clear()
    ANSWER["order"] = torch.tensor(ORDER)


class Orders(OrdersInputs):
    def input_order(self, target):
        ANSWER["asked"] = target.name
        return ANSWER["order"]

    def importance(self, target):
        return target.tensor.abs()


class Neighbours(Orders):
    def importance(self, target):
        return target.tensor.abs().view(2, 2, 2).sum(2)


class SolvesInOrder(Solves):
    def solve(self, target, choose):
        order = ANSWER["order"]
        kept = choose(target.tensor.abs()[:, order])[:, order.argsort()]
        return tersely.Solution(
            kept, target.tensor * 2, order=order if ANSWER.get("told") else None
        )


class Pairs:
    def __init__(self, *, value="pairs"):
        pass

    def blocks(self, shape, target):
        return tersely.Blocks((1, 1), (1, 2), 1)


class Wide:
    def blocks(self, shape, target):
        return tersely.Blocks((1, 2))


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(name=cls.lower(), implementation=f"{__name__}:{cls}")
            for cls in ("Orders", "Neighbours", "SolvesInOrder")
        ]

    @tersely.hookimpl
    def tersely_granularities(self):
        return [
            tersely.GranularityInfo(name=cls.lower(), implementation=f"{__name__}:{cls}")
            for cls in ("Pairs", "Wide")
        ]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="ordering")
    yield
    tersely.registry().unregister("ordering")


@pytest.fixture
def model():
    net = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]]))
    return net


def attached(model, algorithm="orders", **keys):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "granularity": "pairs", **keys}
    return tersely.attach(model, {"pruning": {"algorithm": algorithm, "config_list": [entry]}})


def compressed(model, algorithm="orders", **keys):
    session = attached(model, algorithm, **keys)
    session.compress()
    return session


def mask(session):
    return session.masks()["0"]["weight"].tolist()


def orders(session):
    return {name: one["weight"].tolist() for name, one in session.input_orders().items()}


def test_a_pattern_is_met_in_the_order_and_the_mask_is_in_its_own(model):
    session = compressed(model)

    assert mask(session) == ORDERED
    assert model[0].weight.tolist() == [[4, 3, 0, 0], [0, 0, 3, 4]]


def test_the_session_tells_the_order(model):
    assert orders(compressed(model)) == {"0": ORDER}


def test_their_own_order_is_none(model):
    ANSWER["order"] = torch.arange(4)
    session = compressed(model)

    assert mask(session) == OWN
    assert orders(session) == {}
    assert session.remarks == ()


def test_the_report_says_that_the_granularity_holds_in_the_order_alone(model):
    session = compressed(model)
    (remark,) = session.remarks

    assert "orders put the inputs of 1 weights in another order, and their granularity" in remark
    assert "0.weight" in remark
    session.finalize()
    assert session.remarks == (remark,)
    assert orders(session) == {"0": ORDER}


def test_the_order_is_saved_and_goes_on(model, tmp_path):
    session = compressed(model)
    session.save(tmp_path)
    session.detach()
    other = tersely.load_session(model, tmp_path)

    assert mask(other) == ORDERED
    assert orders(other) == {"0": ORDER}
    assert len(other.remarks) == 1


def test_a_saved_order_of_other_inputs_is_refused(model):
    session = compressed(model)
    tensors, data = session.state()
    tensors["order:0.weight"] = torch.tensor([0, 0, 1, 3])

    with pytest.raises(tersely.SessionFileError, match=r"the inputs of 0\.weight is not"):
        session.restore(tensors, data)


def test_masks_by_hand_have_no_order(model):
    session = compressed(model)
    session.set_masks({"0": {"weight": torch.tensor(OWN)}})

    assert orders(session) == {}


def test_a_step_that_fails_leaves_the_order(model, monkeypatch):
    session = compressed(model)
    ANSWER["order"] = torch.arange(4)
    monkeypatch.setattr("tersely.pruning.engine.warn_of_unranked", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.compress()

    assert orders(session) == {"0": ORDER}


def test_blocks_of_several_inputs_are_cut_in_the_order(model):
    # Of row 0 the blocks are 4 + 2 and 3 + 1, of row 1 they are 1 + 3 and 2 + 4.
    session = compressed(model, granularity="wide", sparse_ratio=0.5)

    assert mask(session) == [[True, False, True, False], [False, True, False, True]]


def test_scores_of_blocks_that_are_cut_in_an_order_have_to_be_those_of_elements(model):
    with pytest.raises(tersely.PluginError, match="returned scores of shape \\[2, 2\\]"):
        compressed(model, "neighbours", granularity="wide", sparse_ratio=0.5)


@pytest.mark.parametrize("keys", [{"granularity": "default", "sparse_ratio": 0.5}])
def test_where_it_has_no_effect_no_order_is_asked_for(model, keys):
    session = compressed(model, **keys)

    assert "asked" not in ANSWER
    assert orders(session) == {}


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([0, 1], "returned a list for 0.weight; expected the order of its inputs"),
        (torch.tensor([0.0, 1, 2, 3]), "an order of dtype torch.float32"),
        (torch.tensor([0, 1, 2]), "shape \\[3\\] for 0.weight; expected torch.int64 of shape"),
        (torch.tensor([0, 1, 2, 2]), "an order that repeats inputs for 0.weight; expected each of"),
    ],
)
def test_what_is_no_order_is_an_error_that_names_the_algorithm(model, order, words):
    ANSWER["order"] = order

    with pytest.raises(tersely.PluginError, match=words):
        compressed(model)


def test_a_solution_is_checked_in_its_order(model):
    ANSWER["told"] = True
    session = compressed(model, "solvesinorder")

    assert mask(session) == ORDERED
    assert orders(session) == {"0": ORDER}


def test_a_solution_without_an_order_is_checked_in_its_own(model):
    with pytest.raises(tersely.PluginError, match="a mask that keeps 2 of some 2 neighbours"):
        compressed(model, "solvesinorder")
