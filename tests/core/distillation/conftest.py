"""A small student and its teacher."""

import pytest
import torch
from torch import nn

import tersely


def make_filled(value: float, *, width: int = 2) -> nn.Module:
    """Two layers without bias: the first multiplies the sum of the inputs, the second copies."""
    net = nn.Sequential(nn.Linear(2, width, bias=False), nn.Linear(width, width, bias=False))
    with torch.no_grad():
        net[0].weight.fill_(value)
        net[1].weight.copy_(torch.eye(width))
    return net


@pytest.fixture
def filled():
    """Make a network: ``filled(value, width=2)``."""
    return make_filled


@pytest.fixture
def student() -> nn.Module:
    return make_filled(1.0)


@pytest.fixture
def teacher() -> nn.Module:
    return make_filled(3.0)


@pytest.fixture
def distilled(toy_losses, student, teacher):
    """Attach one entry; keys that are not given are those of a plain square loss on layer 0."""

    def attach(*, teacher=teacher, student=student, **keys):
        entry = {"op_names": ["0"], "apply_method": "toy_square", **keys}
        return tersely.attach(student, {"distillation": {"config_list": [entry]}}, teacher=teacher)

    return attach
