"""Models that are masked at a weight, an input and an output, and what attaching must not change."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import tersely

Prune = Callable[..., tersely.Session]

WEIGHTS = {"op_types": ["Linear"], "sparse_ratio": 0.5}
OUTPUT = {"op_names": ["act"], "target_names": ["_output_"], "sparse_ratio": 0.25}
INPUT = {"op_names": ["last"], "target_names": ["_input_"], "sparse_ratio": 0.25}
EVERYWHERE = [WEIGHTS, OUTPUT, INPUT]


class Net(nn.Module):
    """Linear, ReLU, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.act = nn.ReLU()
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.act(self.first(x)))


@pytest.fixture(autouse=True)
def _toy_pruners(toy_pruners):
    """Every test here prunes by magnitude."""


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def prune() -> Prune:
    """Prune a model: ``prune(model, {entry}, ..., algorithm="toy", data=None)``."""

    def prune(model, *entries, algorithm="toy", data=None):
        return tersely.prune(model, list(entries), algorithm=algorithm, data=data)

    return prune


@pytest.fixture
def masked(net, x, prune) -> tersely.Session:
    """A session on ``net`` with masks on weights, biases, an input and an output."""
    return prune(net, *EVERYWHERE, data=[x])


@pytest.fixture
def snapshot() -> Callable[[nn.Module], Mapping[str, Any]]:
    """Everything of a model that must come back: classes, attributes and values, by module."""

    def snapshot(model):
        return {
            name: {
                "class": type(module),
                "attributes": {
                    key: copy.copy(value)
                    for key, value in vars(module).items()
                    if key not in ("_parameters", "_buffers")
                },
                "parameters": {
                    key: (value, None if value is None else value.detach().clone())
                    for key, value in module._parameters.items()
                },
                "buffers": {
                    key: (value, None if value is None else value.clone())
                    for key, value in module._buffers.items()
                },
            }
            for name, module in model.named_modules(remove_duplicate=False)
        }

    return snapshot


@pytest.fixture
def assert_same(snapshot) -> Callable[[nn.Module, Mapping[str, Any]], None]:
    """Compare a model with a snapshot: the same objects with the same bits."""

    def assert_same(model, before):
        after = snapshot(model)
        assert list(after) == list(before)
        for name, module in after.items():
            assert module["class"] is before[name]["class"]
            assert module["attributes"] == before[name]["attributes"]
            for kind in ("parameters", "buffers"):
                assert list(module[kind]) == list(before[name][kind])
                for key, (value, copied) in module[kind].items():
                    was, was_copied = before[name][kind][key]
                    assert value is was
                    assert copied is None or torch.equal(copied, was_copied)

    return assert_same


@pytest.fixture
def masked_layer(prune) -> Callable[[nn.Module], nn.Module]:
    """Mask half of the elements of a layer's weight, and leave its bias alone."""

    def masked_layer(layer):
        kind = type(layer).__name__
        entry = {"op_types": [kind], "target_names": ["weight"], "sparse_ratio": 0.5}
        prune(nn.Sequential(layer), entry)
        return layer

    return masked_layer
