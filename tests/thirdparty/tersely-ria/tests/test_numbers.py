"""One number by hand for each, so that the contract is not the only thing that holds."""

import math

import numpy
import pytest
import torch
from tersely_ria.algorithms import RowPair, log_cosh

import tersely


def test_relative_importance_adds_shares_of_row_and_column():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -3.0], [1.0, 1.0]]))
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]

    session = tersely.prune(model, config, algorithm="relative_importance")

    # rows: 1/4 3/4 | 1/2 1/2, columns: 1/2 3/4 | 1/2 1/4, together: 3/4 6/4 | 1 3/4;
    # of the two equal scores both go
    assert session.masks()["0"]["weight"].tolist() == [[False, True], [True, False]]


def test_a_power_of_the_shares_changes_the_scores_not_the_order():
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
    plain = torch.nn.Sequential(torch.nn.Linear(4, 4))
    squared = torch.nn.Sequential(torch.nn.Linear(4, 4))
    squared.load_state_dict(plain.state_dict())

    first = tersely.prune(plain, config, algorithm="relative_importance")
    second = tersely.prune(squared, config, algorithm="relative_importance", options={"power": 2.0})

    assert torch.equal(first.masks()["0"]["weight"], second.masks()["0"]["weight"])


def test_row_pairs_go_together():
    model = torch.nn.Sequential(torch.nn.Linear(2, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 1.0], [5.0, 5.0], [0.0, 0.0]]))
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5, "granularity": "row_pair"}]

    session = tersely.prune(model, config, algorithm="relative_importance")

    # each element of rows 0 and 1: 1/2 + 1/7, of row 2: 1/2 + 5/7, of row 3: 0;
    # so the first pair has 4 * 9/14 = 18/7, the second 2 * 17/14 = 17/7
    assert session.masks()["0"]["weight"].all(1).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("algorithm", "kept", "order"),
    [
        ("relative_importance", [True, False, True, False], None),
        ("relative_importance_permuted", [True, True, False, False], [0, 2, 1, 3]),
    ],
)
def test_an_order_of_inputs_lets_a_pattern_keep_what_is_important(algorithm, kept, order):
    model = torch.nn.Sequential(torch.nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[8.0, 7.0, 2.0, 1.0]]))
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "granularity": "one_of_two"}

    session = tersely.prune(model, [entry], algorithm=algorithm)

    # Every column has a share of 1. Side by side, 8 and 7 compete and 10 of 18 are kept; dealt out
    # to two groups they do not, and 15 are.
    assert session.masks()["0"]["weight"].tolist() == [kept]
    orders = session.input_orders()
    assert orders == {} if order is None else orders["0"]["weight"].tolist() == order


def test_the_granularity_needs_no_session():
    assert RowPair().blocks((4, 3, 3), None).size == (2, -1, -1)


def test_log_cosh_of_zero_and_one():
    loss = log_cosh(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]))

    assert loss.item() == pytest.approx(math.log(math.cosh(1.0)) / 2, rel=1e-6)


def test_log_cosh_of_a_large_difference_is_nearly_linear():
    loss = log_cosh(torch.tensor([1000.0]), torch.tensor([0.0]))

    assert loss.item() == pytest.approx(1000.0 - math.log(2))


def test_arrays_hold_the_integers_and_how_they_are_read(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -3.0], [0.5, 2.0]]))
    config = [{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"}]
    session = tersely.quantize(model, config, algorithm="power_of_two")

    exported = session.export("arrays", tmp_path / "weights.npz")

    # 3 / 127 rounded up to a power of two is 1 / 32
    with numpy.load(exported.paths[0]) as arrays:
        assert arrays["0.weight"].tolist() == [[32, -96], [16, 64]]
        assert arrays["0.weight.scale"].item() == 1 / 32


def test_arrays_refuse_inputs_by_name(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    config = [{"op_types": ["Linear"], "target_names": ["_input_"], "quant_dtype": "int8"}]
    session = tersely.quantize(model, config, algorithm="power_of_two", data=[torch.ones(1, 2)])

    with pytest.raises(tersely.ExportError, match=r"0\._input_: arrays hold no inputs"):
        session.export("arrays", tmp_path / "weights.npz")

    assert list(tmp_path.iterdir()) == []
