"""Gradients that were zeroed too early, that a frozen layer never has, or that a step passes over."""

import pytest
import torch
from torch import nn

import tersely

X = torch.tensor([[1.0, -2.0, 3.0, -4.0]])


class Routed(nn.Module):
    """Calls only the layers that it is told to."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, inputs, chosen):
        return sum(self.layers[number](inputs) for number in chosen)


def attach(model):
    torch.manual_seed(0)
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    return tersely.attach(model, {"pruning": {"algorithm": "taylor", "config_list": [entry]}})


@pytest.mark.parametrize("is_none", [True, False])
def test_a_gradient_that_was_zeroed_before_the_step_is_an_error(is_none):
    model = nn.Sequential(nn.Linear(4, 4))
    session = attach(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(X).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=is_none)
    with pytest.raises(tersely.SessionError, match=r"0\.weight .* before optimizer\.zero_grad\(\)"):
        session.step()


def test_a_gradient_that_is_zero_by_itself_is_no_error():
    model = nn.Sequential(nn.Linear(4, 4))
    session = attach(model)
    (model(X) * 0).sum().backward()
    session.step()
    assert session.steps == 1


def test_a_frozen_layer_is_named_when_the_session_is_attached():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    with pytest.raises(tersely.AttachError, match=r"0\.weight is frozen .* taylor ranks by gradi"):
        attach(model)
    assert not any("tersely" in key for module in model for key in module.__dict__)


def test_a_layer_that_some_steps_pass_over_counts_with_the_others():
    model = Routed()
    session = attach(model)
    for chosen in ([0], [1], [0, 1]):
        model.zero_grad()
        model(X, chosen).square().sum().backward()
        session.step()
    session.compress()
    assert {targets["weight"] for targets in session.sparsity().values()} == {0.5}


def test_a_layer_that_every_step_passes_over_is_named():
    model = Routed()
    session = attach(model)
    model(X, [0]).square().sum().backward()
    session.step()
    with pytest.raises(
        tersely.SessionError, match=r"layers\.1\.weight had no gradient .* every st"
    ):
        session.compress()


def test_a_step_without_a_backward_pass_is_an_error():
    session = attach(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(tersely.SessionError, match="has no gradient"):
        session.step()


NAMED_AS_FROZEN = r"^0\.weight has been frozen since .* taylor ranks by gradients"


def test_a_layer_that_is_frozen_later_is_named_as_frozen():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    session = attach(model)
    model[0].requires_grad_(False)
    model(X).square().sum().backward()
    session.step()
    with pytest.raises(tersely.SessionError, match=NAMED_AS_FROZEN):
        session.compress()


def test_layers_that_are_all_frozen_later_are_named_as_frozen():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    session = attach(model)
    model.requires_grad_(False)
    with pytest.raises(tersely.SessionError, match=NAMED_AS_FROZEN):
        session.step()
