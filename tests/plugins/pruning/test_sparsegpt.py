"""SparseGPT: a Hessian inverted by hand, and what must hold for any."""

import pytest
import torch
from torch import nn

import tersely

TINY_DAMPING = {"percdamp": 1e-7}


def linear(weight):
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    with torch.no_grad():
        model[0].weight.copy_(weight)
    return model


def prune(model, inputs, *, ratio=0.5, options=None):
    return tersely.prune(
        model,
        [{"op_names": ["0"], "sparse_ratio": ratio}],
        algorithm="sparsegpt",
        options=options,
        data=[inputs],
    )


def test_a_kept_weight_makes_up_for_its_masked_neighbour():
    # X^T X = [[2, 1], [1, 2]]. Without w1, the best w2 is w2 + w1 * 1 / 2 = 4 + 0.5.
    inputs = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    model = linear(torch.tensor([[1.0, 4.0]]))
    session = prune(model, inputs, options=TINY_DAMPING)
    assert session.masks()["0"]["weight"].tolist() == [[False, True]]
    torch.testing.assert_close(model[0].weight, torch.tensor([[0.0, 4.5]]), rtol=1e-4, atol=1e-4)


def test_independent_inputs_of_one_length_leave_magnitude_pruning():
    weight = torch.tensor([[1.0, -4.0, 3.0, 0.5], [2.0, -0.1, 5.0, -6.0]])
    model = linear(weight)
    session = prune(model, torch.eye(4))
    kept = session.masks()["0"]["weight"]
    assert kept.tolist() == [[False, True, True, False], [False, False, True, True]]
    torch.testing.assert_close(model[0].weight, weight * kept)


def test_the_output_is_closer_than_masking_alone_leaves_it():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
    weight = torch.randn(8, 16, generator=generator)
    model = linear(weight)
    kept = prune(model, inputs).masks()["0"]["weight"]
    dense = inputs @ weight.T
    updated = (inputs @ model[0].weight.detach().T - dense).norm()
    assert updated < 0.9 * (inputs @ (weight * kept).T - dense).norm()


def test_detaching_gives_the_weights_back_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 16, generator=generator)
    model = linear(weight)
    session = prune(model, torch.randn(64, 16, generator=generator))
    assert not torch.equal(model[0].weight, weight)
    session.detach()
    assert torch.equal(model[0].weight, weight)


def test_inputs_that_are_not_finite_are_an_error_and_change_nothing():
    weight = torch.ones(2, 4)
    model = linear(weight)
    with pytest.raises(tersely.CalibrationError, match=r"0\.weight"):
        prune(model, torch.full((3, 4), float("nan")))
    assert type(model[0]) is nn.Linear
    assert torch.equal(model[0].weight, weight)
