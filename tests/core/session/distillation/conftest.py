"""Losses to distil with where no plugin is installed."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import nn

import laconic


@pytest.fixture
def toy_losses() -> Iterator[None]:
    """Register toy losses.

    ``toy_square`` is a mean of squares, ``toy_sum`` adds its option, ``toy_broken`` returns no
    scalar and ``toy_fails`` multiplies what cannot be multiplied.
    """

    def square(student, teacher):
        if student.shape != teacher.shape:
            raise ValueError(f"shapes {list(student.shape)} and {list(teacher.shape)} differ")
        return (student - teacher).square().mean()

    def add(student, teacher, *, extra=0.0):
        return student.sum() - teacher.sum() + extra

    def broken(student, teacher):
        return student

    def fails(student, teacher):
        return (student @ teacher).sum()

    class Face:
        @laconic.hookimpl
        def laconic_distillation_losses(self):
            extra = {
                "type": "object",
                "properties": {"extra": {"type": "number"}},
                "additionalProperties": False,
            }
            return [
                laconic.LossInfo(name="toy_square", implementation="laconic_toy_losses:square"),
                laconic.LossInfo(
                    name="toy_sum", implementation="laconic_toy_losses:add", options=extra
                ),
                laconic.LossInfo(name="toy_broken", implementation="laconic_toy_losses:broken"),
                laconic.LossInfo(name="toy_fails", implementation="laconic_toy_losses:fails"),
            ]

    module = ModuleType("laconic_toy_losses")
    module.square, module.add, module.broken, module.fails = square, add, broken, fails
    sys.modules["laconic_toy_losses"] = module
    name = laconic.registry().register(Face(), name="laconic-toy-losses")
    yield
    laconic.registry().unregister(name)
    del sys.modules["laconic_toy_losses"]


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
        return laconic.attach(student, {"distillation": {"config_list": [entry]}}, teacher=teacher)

    return attach
