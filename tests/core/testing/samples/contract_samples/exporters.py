"""Exporters with one mistake each, and the good one that they depart from."""

import random
import time

import numpy
import torch
from torch import nn

import tersely
from tersely.contracts import RunsExport

SEEN = {}
"""What some of them remember between calls."""


class Arrays(RunsExport):
    """A good one: NumPy arrays, and a model of two linear layers that computes with them."""

    def refusals(self, source):
        reason = "arrays hold weights alone; leave inputs and outputs out"
        rounded = [tersely.Refusal(reason, one.name) for one in source.activations]
        return [*rounded, *self.refused_factors(source)]

    def refused_factors(self, source):
        reason = "arrays hold no factors of inputs; quantize without them"
        integers = source.integers.items()
        return [
            tersely.Refusal(reason, name) for name, one in integers if one.input_scale is not None
        ]

    def write(self, source, path):
        with path.open("wb") as stream:
            numpy.savez(stream, **self.arrays(source))
        return [path]

    def arrays(self, source):
        found = {name: tensor.numpy() for name, tensor in source.floats.items()}
        for name, weight in source.integers.items():
            found[name] = weight.values.numpy()
            found[f"{name}.scale"] = weight.qparams.scale.numpy()
            found[f"{name}.zero_point"] = weight.qparams.zero_point.numpy()
        return found

    def check(self, source, path):
        held, expected = self.read(path), self.arrays(source)
        for name, array in expected.items():
            if not numpy.array_equal(held[name], array):
                raise tersely.ExportError("another array was read back")
        return {"equal": len(expected)}

    def read(self, path):
        with numpy.load(path) as arrays:
            return dict(arrays)

    def load(self, path, *, threads):
        held = self.read(path)
        model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        for name, parameter in model.named_parameters():
            parameter.data = torch.from_numpy(held[name]).float()
            if f"{name}.scale" in held:
                parameter.data -= self.part(held, name, "zero_point")
                parameter.data *= self.part(held, name, "scale")
        return model

    def part(self, held, name, part):
        return torch.from_numpy(held[f"{name}.{part}"]).float()


class OtherIntegers(Arrays):
    """Writes other integers, and compares none."""

    def write(self, source, path):
        found = self.arrays(source)
        found |= {name: found[name] + 1 for name in source.integers}
        with path.open("wb") as stream:
            numpy.savez(stream, **found)
        return [path]

    def check(self, source, path):
        return {"arrays": len(self.read(path))}


class DropsFactors(Arrays):
    """Writes the integers of weights that are divided by factors, and not the factors."""

    def refused_factors(self, source):
        return []


class DropsMasks(Arrays):
    """Reads the model's own parameters, which no mask has changed."""

    def arrays(self, source):
        found = super().arrays(source)
        state = source.model.state_dict()
        return found | {name: state[name].numpy() for name in source.floats}


class ForgetsZeroPoints(Arrays):
    """Reads integers without their zero points."""

    def part(self, held, name, part):
        found = super().part(held, name, part)
        return torch.zeros_like(found) if part == "zero_point" else found


class ScalesReversed(Arrays):
    """Reads the scales of channels in another order."""

    def part(self, held, name, part):
        return super().part(held, name, part).flip(0)


class RefusesLate(Arrays):
    """Refuses what it has written already."""

    def refusals(self, source):
        return []

    def write(self, source, path):
        written = super().write(source, path)
        if source.activations:
            raise tersely.ExportError("no inputs", target=source.activations[0].name)
        return written


class RefusesBySilence(Arrays):
    """Refuses without a reason."""

    def refusals(self, source):
        return [tersely.Refusal(" ", one.name) for one in source.activations]


class RefusesStrangers(Arrays):
    """Names modules in its refusals, where targets are asked for."""

    def refusals(self, source):
        return [tersely.Refusal("no inputs", f"{one.module}?") for one in source.activations]


class RefusesAll(Arrays):
    """Refuses every model."""

    def refusals(self, source):
        return [tersely.Refusal("not yet")]


class LeavesNotes(Arrays):
    """Writes a file that it does not name into the folder of the export."""

    def write(self, source, path):
        (path.parent.parent / "notes.txt").write_text("done")
        return super().write(source, path)


class LeavesHalf(Arrays):
    """Leaves the half of a file beside the folder of the export."""

    def write(self, source, path):
        (path.parent.parent.parent / "half").write_bytes(b"half")
        return super().write(source, path)


class NotesRefusals(Arrays):
    """Fails on what it should refuse, after it has left a file."""

    def refusals(self, source):
        if source.activations:
            raise NotImplementedError("inputs")
        return []


class OtherEnding(Arrays):
    """Writes with the ending of its own choice, not to the path that it is given."""

    def write(self, source, path):
        return super().write(source, path.with_name("model.own"))

    def read(self, path):
        return super().read(path.with_name("model.own"))


class WritesEmpty(Arrays):
    """Names a second file that has nothing in it."""

    def write(self, source, path):
        beside = path.with_name(f"{path.name}.index")
        beside.touch()
        return [*super().write(source, path), beside]


class FreezesModel(Arrays):
    """Freezes the model of the session."""

    def write(self, source, path):
        source.model.requires_grad_(requires_grad=False)
        return super().write(source, path)


class LeavesEvaluation(Arrays):
    """Leaves the model of the session in evaluation mode."""

    def write(self, source, path):
        source.model.eval()
        return super().write(source, path)


class RoundsModel(Arrays):
    """Rounds the parameters of the session themselves."""

    def write(self, source, path):
        for parameter in source.model.parameters():
            parameter.data = parameter.data.half().float()
        return super().write(source, path)


class Dates(Arrays):
    """Writes the time into the file."""

    def arrays(self, source):
        return super().arrays(source) | {"time": numpy.array(time.perf_counter_ns())}

    def check(self, source, path):
        held, expected = self.read(path), self.arrays(source)
        for name, array in expected.items():
            if name != "time" and not numpy.array_equal(held[name], array):
                raise tersely.ExportError("another array was read back")
        return {"equal": len(expected)}


class Draws(Arrays):
    """Draws a name from the global random state."""

    def write(self, source, path):
        SEEN["name"] = random.random()
        return super().write(source, path)


class ChecksNothing(Arrays):
    """Reads the file and returns nothing."""

    def check(self, source, path):
        self.read(path)
        return {}


class ReturnsArrays(Arrays):
    """Returns arrays where data for a report is asked for."""

    def check(self, source, path):
        return {**super().check(source, path), "error": numpy.zeros(1)}


class RefusesItself(Arrays):
    """Reads something else than it wrote."""

    def check(self, source, path):
        raise tersely.ExportError("another array was read back")


class RemembersFirst(Arrays):
    """Keeps the first model's arrays for all that follow."""

    def arrays(self, source):
        names = tuple(sorted(source.integers))
        return SEEN.setdefault(names, super().arrays(source))


class ClaimsLevels(Arrays):
    """Declares to hold tables of levels, and refuses them."""

    def refusals(self, source):
        refused = list(super().refusals(source))
        for name, weight in source.integers.items():
            if weight.qparams.levels is not None:
                refused.append(tersely.Refusal("no tables", name))
        return refused


class DropsLevels(Arrays):
    """Declares to hold tables of levels, and writes none."""
