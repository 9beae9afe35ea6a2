"""Blocks of any shape: what each pruner makes of them (rule G6.1)."""

import pytest
import torch
from messages.blocks import IN_THAT_ORDER
from torch import nn

import tersely

# Wrapped diagonals of 4 x 2: rows 0 and 2 hold block 0 first, rows 1 and 3 block 1.
INDEX = [[0, 1], [1, 0], [0, 1], [1, 0]]
WEIGHT = torch.tensor([[3.0, 1], [-1, 3], [0, -2], [2, 0]])


class Diagonals:
    def blocks(self, shape, target):
        return tersely.Blocks(index=INDEX)


@pytest.fixture(autouse=True)
def diagonals(provide):
    reference = "tersely_numbered:Diagonals"
    info = tersely.GranularityInfo(name="toy_diagonals", implementation=reference)
    with provide("tersely_numbered", info, Diagonals=Diagonals):
        yield


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(2, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(WEIGHT)
    return model


def entry(**keys):
    settings = {"granularity": "toy_diagonals", "sparse_ratio": 0.5, **keys}
    return {
        "op_types": ["Linear"],
        "target_names": ["weight"],
        "target_settings": {"weight": settings},
    }


def attach(model, algorithm, **options):
    stage = {"algorithm": algorithm, "config_list": [entry()], "options": options}
    return tersely.attach(model, {"pruning": stage})


def kept(session):
    [number] = set(torch.tensor(INDEX)[session.masks()["0"]["weight"]].tolist())
    return number


@pytest.mark.parametrize(
    ("algorithm", "stays"),
    # Block 0 holds 3, 3, 0, 0 and block 1 holds 1, 1, 2, 2: sums 6 and 6, norms 4.24 and 3.16.
    [("level", 1), ("l1_norm", 1), ("l2_norm", 0)],
)
def test_norms_are_those_of_the_elements_with_one_number(model, algorithm, stays):
    session = tersely.prune(model, [entry()], algorithm=algorithm)
    assert kept(session) == stays


def test_wanda_adds_the_scores_of_a_block(model):
    with torch.no_grad():
        model[0].weight[1] = torch.tensor([-5.0, 4.0])
    # Times the inputs' norms: 0.3 + 8 for block 0, 2 + 0.5 + 4 + 0.2 for block 1, whose magnitudes
    # are larger.
    data = torch.tensor([[0.1, 2.0]])
    session = tersely.prune(model, [entry()], algorithm="wanda", data=[data])
    assert kept(session) == 0


def test_taylor_squares_the_product_of_each_element(model):
    session = attach(model, "taylor")
    model(torch.tensor([[1.0, 0.0]])).sum().backward()
    session.step()
    session.compress()
    # The gradient is 1 in the first column: 9 + 0 for block 0, 1 + 4 for block 1.
    assert kept(session) == 0


@pytest.mark.parametrize("algorithm", ["movement", "slim"])
def test_what_is_learned_for_a_block_has_the_summed_gradient_of_its_elements(model, algorithm):
    options = {"warmup_steps": 1, "cooldown_begin_step": 2} if algorithm == "movement" else {}
    session = attach(model, algorithm, **options)
    model(torch.tensor([[1.0, 0.0]])).sum().backward()
    [learned] = session.parameters()
    # The gradient of an element is its weight times its input: 3 + 0 and -1 + 2.
    assert learned.grad.tolist() == [3.0, 1.0]


def test_an_algorithm_that_compares_lengths_refuses_them_by_name(model):
    with pytest.raises(
        tersely.PlanError, match='fpgm does not support granularity "toy_diagonals"'
    ):
        tersely.prune(model, [entry()], algorithm="fpgm")


def test_elements_of_a_vector_in_another_order_are_refused_with_the_reason(monkeypatch):
    # One value per block could not be told from one per element.
    model = nn.Sequential(nn.Linear(2, 4))
    blocks = tersely.Blocks(index=[3, 2, 1, 0])
    monkeypatch.setattr(Diagonals, "blocks", lambda self, shape, target: blocks)
    keys = {"granularity": "toy_diagonals", "sparse_ratio": 0.5}
    one = {"op_names": ["0"], "target_names": ["bias"], "target_settings": {"bias": keys}}
    with pytest.raises(tersely.PlanError, match=f"0\\.bias: .* {IN_THAT_ORDER}"):
        tersely.prune(model, [one], algorithm="l1_norm")
