"""Losses to distil with where no plugin is installed."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import nn

import tersely


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
        @tersely.hookimpl
        def tersely_distillation_losses(self):
            extra = {
                "type": "object",
                "properties": {"extra": {"type": "number"}},
                "additionalProperties": False,
            }
            return [
                tersely.LossInfo(name="toy_square", implementation="tersely_toy_losses:square"),
                tersely.LossInfo(
                    name="toy_sum", implementation="tersely_toy_losses:add", options=extra
                ),
                tersely.LossInfo(name="toy_broken", implementation="tersely_toy_losses:broken"),
                tersely.LossInfo(name="toy_fails", implementation="tersely_toy_losses:fails"),
            ]

    module = ModuleType("tersely_toy_losses")
    module.square, module.add, module.broken, module.fails = square, add, broken, fails
    sys.modules["tersely_toy_losses"] = module
    name = tersely.registry().register(Face(), name="tersely-toy-losses")
    yield
    tersely.registry().unregister(name)
    del sys.modules["tersely_toy_losses"]


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
