"""Plugins of the suite's own, because the core is tested without any, and a small model.

Nothing here imports torch before a test asks for it: part of the suite runs without.
"""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
    from torch import nn


TOY_OPTIONS = {
    "type": "object",
    "properties": {"fails": {"enum": ["refusals", "write", "nothing", "check"]}},
    "additionalProperties": False,
}


@pytest.fixture
def toy_pruners() -> Iterator[None]:
    """Register ``toy`` (every weight alone) and ``toy_rows`` (output channels), by magnitude."""
    import tersely

    class Magnitude:
        def importance(self, target: tersely.PruningTarget) -> object:
            return target.tensor.abs()

    class Face:
        @tersely.hookimpl
        def tersely_pruners(self) -> list[tersely.PrunerInfo]:
            reference = "tersely_toy:Magnitude"
            return [
                tersely.PrunerInfo(name="toy", implementation=reference),
                tersely.PrunerInfo(
                    name="toy_rows",
                    implementation=reference,
                    default_granularity="output_channel",
                ),
            ]

        @tersely.hookimpl
        def tersely_schedules(self) -> list[tersely.ScheduleInfo]:
            return [tersely.ScheduleInfo(name="toy_line", implementation="tersely_toy:line")]

        @tersely.hookimpl
        def tersely_exporters(self) -> list[tersely.ExporterInfo]:
            reference = "tersely_toy:Names"
            return [
                tersely.ExporterInfo(
                    name="toy_names", implementation=reference, suffix=".txt", options=TOY_OPTIONS
                )
            ]

    class Names:
        def __init__(self, *, fails: str = "") -> None:
            self.fails = fails

        def refusals(self, source: tersely.ExportSource) -> list[tersely.Refusal]:
            refused = self.fails == "refusals"
            return [tersely.Refusal("it has a name", name) for name in source.floats] * refused

        def write(self, source: tersely.ExportSource, path: object) -> list[object]:
            path.write_text("\n".join([*source.integers, *source.floats]))
            if self.fails == "write":
                raise ValueError("no more names")
            return [] if self.fails == "nothing" else [path]

        def check(self, source: tersely.ExportSource, path: object) -> dict[str, int]:
            if self.fails == "check":
                raise tersely.ExportError("its name was read differently", target="0.weight")
            return {"names": len(path.read_text().split())}

    module = ModuleType("tersely_toy")
    module.Magnitude, module.Names, module.line = Magnitude, Names, lambda progress: progress
    sys.modules["tersely_toy"] = module
    name = tersely.registry().register(Face(), name="tersely-toy")
    yield
    tersely.registry().unregister(name)
    del sys.modules["tersely_toy"]


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
    import tersely

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
def toy_halves(toy_pruners, provide) -> Iterator[None]:
    """Register the granularity ``toy_halves``: two blocks, the halves of dimension 0."""
    import tersely

    class Halves:
        def blocks(self, shape, target):
            return tersely.Blocks((shape[0] // 2, *(-1,) * (len(shape) - 1)))

    info = tersely.GranularityInfo(name="toy_halves", implementation="tersely_halves:Halves")
    with provide("tersely_halves", info, Halves=Halves):
        yield


@pytest.fixture
def build() -> "Callable[[], nn.Sequential]":
    """Make the same small model at every call."""
    import torch
    from torch import nn

    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    return build


@pytest.fixture
def data() -> "torch.Tensor":
    import torch

    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def toy_losses() -> Iterator[None]:
    """Register toy losses.

    ``toy_square`` is a mean of squares, ``toy_sum`` adds its option, ``toy_broken`` returns no
    scalar and ``toy_fails`` multiplies what cannot be multiplied. ``toy_energy`` needs no teacher,
    and ``toy_labelled`` is the mean of the student's outputs at the labels of a batch.
    """
    import tersely

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

    def energy(student, teacher):
        assert teacher is None
        return student.square().mean()

    def labelled(student, teacher, *, labels, factor=1.0):
        return student.gather(1, labels[:, None]).mean() * factor

    class Face:
        @tersely.hookimpl
        def tersely_distillation_losses(self):
            named = {
                "type": "object",
                "properties": {
                    "labels": {"type": ["string", "integer"], "default": "labels"},
                    "factor": {"type": "number"},
                },
                "additionalProperties": False,
            }
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
                tersely.LossInfo(
                    name="toy_energy", implementation="tersely_toy_losses:energy", needs="nothing"
                ),
                tersely.LossInfo(
                    name="toy_labelled",
                    implementation="tersely_toy_losses:labelled",
                    options=named,
                    needs="nothing",
                    batch_options=("labels",),
                ),
            ]

    module = ModuleType("tersely_toy_losses")
    module.square, module.add, module.broken, module.fails = square, add, broken, fails
    module.energy, module.labelled = energy, labelled
    sys.modules["tersely_toy_losses"] = module
    name = tersely.registry().register(Face(), name="tersely-toy-losses")
    yield
    tersely.registry().unregister(name)
    del sys.modules["tersely_toy_losses"]
