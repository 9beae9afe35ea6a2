"""Pruners that misbehave on purpose, and a session on a small model."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import nn

import tersely


class Behaviour:
    """What ``toy_odd`` and ``toy_curve`` do when they are asked; a test replaces it."""

    def __init__(self) -> None:
        self.score = lambda target: target.tensor.abs()
        self.curve = lambda progress: progress
        self.face: object = None


@pytest.fixture
def odd(toy_pruners) -> Iterator[Behaviour]:
    """Register the pruner ``toy_odd`` and the schedule ``toy_curve``, which a test programs.

    ``odd.score = lambda target: ...`` and ``odd.curve = lambda progress: ...``.
    """
    behaviour = Behaviour()

    class Odd:
        def importance(self, target):
            return behaviour.score(target)

    class Face:
        @tersely.hookimpl
        def tersely_pruners(self):
            return [tersely.PrunerInfo(name="toy_odd", implementation="tersely_odd:Odd")]

        @tersely.hookimpl
        def tersely_schedules(self):
            return [tersely.ScheduleInfo(name="toy_curve", implementation="tersely_odd:curve")]

    def curve(progress):
        return behaviour.curve(progress)

    module = ModuleType("tersely_odd")
    module.Odd, module.curve = Odd, curve
    sys.modules["tersely_odd"] = module
    behaviour.face = Face()
    name = tersely.registry().register(behaviour.face, name="tersely-odd")
    yield behaviour
    tersely.registry().unregister(name)
    del sys.modules["tersely_odd"]


@pytest.fixture
def toy_halves(toy_pruners) -> Iterator[None]:
    """Register the granularity ``toy_halves``: two blocks, the halves of dimension 0."""

    class Halves:
        def blocks(self, shape, target):
            return tersely.Blocks((shape[0] // 2, *(-1,) * (len(shape) - 1)))

    class Face:
        @tersely.hookimpl
        def tersely_granularities(self):
            reference = "tersely_halves:Halves"
            return [tersely.GranularityInfo(name="toy_halves", implementation=reference)]

    module = ModuleType("tersely_halves")
    module.Halves = Halves
    sys.modules["tersely_halves"] = module
    name = tersely.registry().register(Face(), name="tersely-halves")
    yield
    tersely.registry().unregister(name)
    del sys.modules["tersely_halves"]


@pytest.fixture
def build() -> Callable[[], nn.Sequential]:
    """Make the same small model at every call."""

    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    return build


@pytest.fixture
def data() -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
