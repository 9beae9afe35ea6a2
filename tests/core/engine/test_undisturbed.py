"""A model that something ran on is as it was, whatever was done to it."""

import torch
from torch import nn

from tersely.engine.isolation.undisturbed import undisturbed


def test_a_parameter_that_was_transposed_has_its_shape_again():
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()

    with undisturbed(model):
        model.weight.data = model.weight.data.t()

    assert torch.equal(model.weight, before)


def test_a_buffer_that_got_a_graph_is_a_plain_one_again():
    model = nn.Linear(4, 3)
    model.register_buffer("sums", torch.zeros(3))

    with undisturbed(model):
        model.sums.add_(model.weight.sum(1))

    assert model.sums.tolist() == [0, 0, 0]
    assert (model.sums.is_leaf, model.sums.requires_grad) == (True, False)
