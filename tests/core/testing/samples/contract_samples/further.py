"""More mistakes that authors make, with what surrounds an algorithm: process, options, layout."""

import logging
import math
import os
import sys
import time
import warnings

import torch
from torch import nn

import tersely
from tersely.contracts import (
    LearnsScales,
    MergesObservations,
    ObservesGradients,
    ObservesInputs,
    ObservesRange,
    ScoresBlocks,
    Simulates,
    SolvesWeights,
    StatefulLoss,
)

SEEN = {}
"""What some of them remember between calls."""


class Magnitude:
    def importance(self, target):
        return target.tensor.detach().abs().float()


# Pruners.


class Prints(Magnitude):
    def importance(self, target):
        sys.stdout.write(f"scoring {target.name}")
        return super().importance(target)


class SetsThreads(Magnitude):
    def importance(self, target):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().importance(target)


class SetsDefaultDtype(Magnitude):
    def importance(self, target):
        torch.set_default_dtype(torch.float64)
        return super().importance(target)


class SetsEnvironment(Magnitude):
    def importance(self, target):
        os.environ["CUBLAS_WORKSPACE_CONFIG_SAMPLE"] = str(time.perf_counter_ns())
        return super().importance(target)


class ConfiguresLogging(Magnitude):
    def importance(self, target):
        logging.getLogger().addHandler(logging.NullHandler())
        return super().importance(target)


class CatchesInterrupts(Magnitude):
    def importance(self, target):
        try:
            return super().importance(target)
        except:  # noqa: E722 - the mistake
            return torch.ones_like(target.tensor)


class WatchesClock(Magnitude):
    def importance(self, target):
        return super().importance(target) * (time.perf_counter_ns() % 1009)


class ByFirstTarget(Magnitude):
    def __init__(self):
        self.most = None

    def importance(self, target):
        scores = super().importance(target)
        if self.most is None:
            self.most = scores.amax()
        return scores / self.most


class ViewsMemory(Magnitude):
    def importance(self, target):
        return target.tensor.detach().view(-1).abs().view(target.tensor.shape)


class ReadsStorage(Magnitude):
    def importance(self, target):
        tensor = target.tensor.detach()
        return torch.as_strided(tensor, tensor.shape, torch.empty(tensor.shape).stride()).abs()


class DeviatesFromOthers(Magnitude):
    def importance(self, target):
        rows = super().importance(target).flatten(1)
        return (rows / rows.std(0, keepdim=True)).reshape(target.tensor.shape)


class DividesByLargest(ScoresBlocks):
    def block_scores(self, tensor, blocks):
        magnitudes = tensor.detach().abs().float()
        return magnitudes / magnitudes.max().clamp(min=1e-9)


class SquaresInHalf(Magnitude):
    def importance(self, target):
        return (target.tensor.detach() * 100).square()


class ClearsGradients(Magnitude):
    def importance(self, target):
        target.module.zero_grad()
        return super().importance(target)


class SpendsGradient(Magnitude, ObservesGradients):
    def observe_gradient(self, gradient, target):
        return {"sum": gradient.sum(), "count": 1}


class UnreadPower(Magnitude):
    def __init__(self, *, power=1.0):
        self.exponent = 1.0


class OtherPower(Magnitude):
    def __init__(self, *, power=2.0):
        self.power = power

    def importance(self, target):
        return super().importance(target) ** self.power


class AlwaysWarns(Magnitude):
    def importance(self, target):
        warnings.warn("old", DeprecationWarning, stacklevel=2)
        return super().importance(target)


class EmptyScores(Magnitude):
    def importance(self, target):
        return torch.empty(target.tensor.shape[:1])


class FailsInDouble(Magnitude):
    def importance(self, target):
        return target.tensor.detach().abs() @ torch.eye(target.tensor.shape[-1])


# Quantizers.


class Good:
    def choose(self, low, high, target):
        return tersely.choose_qparams(low, high, target)


class SymmetricAnyway(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        most = torch.maximum(-low, high).clamp_min(1e-6)
        span = target.quant_max - target.quant_min
        zero = torch.full_like(chosen.zero_point, (target.quant_max + target.quant_min + 1) // 2)
        return chosen.evolve(scale=(most * 2 / span).reshape(chosen.scale.shape), zero_point=zero)


class ForgetsNegative(Good):
    def choose(self, low, high, target):
        return super().choose(torch.zeros_like(low), high, target)


class ForgetsPositive(Good):
    def choose(self, low, high, target):
        return super().choose(low, torch.zeros_like(high), target)


class PrintsScale(Good):
    def choose(self, low, high, target):
        sys.stdout.write(f"scale {low.shape}")
        return super().choose(low, high, target)


class SetsThreadsToo(Good):
    def choose(self, low, high, target):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().choose(low, high, target)


class CatchesAll(Good):
    def choose(self, low, high, target):
        try:
            return super().choose(low, high, target)
        except BaseException:
            return None


class WatchesTime(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        return chosen.evolve(scale=chosen.scale * (1 + (time.perf_counter_ns() % 1009) / 1e6))


class UnreadBits(Good):
    def __init__(self, *, bits=8):
        self.depth = 8


class OtherDecay(Good):
    def __init__(self, *, decay=0.9):
        self.decay = decay


class EditsList(Good):
    def __init__(self, *, layers=()):
        layers.append("head")
        self.layers = layers


class ByFirstScale(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        first = SEEN.setdefault(("scale", target.dtype, target.scheme), chosen.scale.amax())
        return chosen.evolve(scale=torch.full_like(chosen.scale, float(first)))


class ReadsBatch(Good, ObservesInputs):
    def observe_input(self, inputs, target):
        return {"mean": inputs.abs().mean()}


class MergesByLast(Good, ObservesInputs, MergesObservations):
    def observe_input(self, inputs, target):
        return {"most": inputs.detach().abs().amax()}

    def merge(self, before, batch):
        return batch


class DividesBySpread(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        return chosen.evolve(scale=chosen.scale / (chosen.scale.std() + 1e-3).expand_as(low))


class ObservesInHalf(Good, ObservesRange):
    def observer(self, target):
        return self

    def observe(self, values, size):
        low, high = tersely.block_range((values * 1e5).half(), size)
        return {"low": low.float(), "high": high.float()}

    def merge(self, before, batch):
        return batch

    def join(self, parts):
        return parts[0]

    def range(self, statistics, target):
        return statistics["low"], statistics["high"]


class SolvesByView(Good, SolvesWeights):
    def solve(self, target):
        flat = target.tensor.detach().view(-1)
        low, high = flat.aminmax()
        qparams = self.choose(low, high, target)
        values = tersely.fake_quantize(flat, qparams).view(target.tensor.shape)
        return tersely.QuantizedWeight(values, qparams)


class WrapsAround(Good, Simulates):
    def simulate(self, value, qparams, target):
        return tersely.fake_quantize(value, qparams)

    def integers(self, value, qparams, target):
        return (tersely.quantize(value, qparams).int() * 2).to(torch.int8), qparams


class TrainsOtherwise(Good, LearnsScales):
    def start(self, qparams, target):
        return {"scale": qparams.scale.clone()}

    def meaning(self, qparams, learned):
        return qparams.evolve(scale=learned["scale"].detach().abs().clamp_min(1e-6))

    def learned_values(self, value, qparams, learned, target):
        found = tersely.fake_quantize(value, self.meaning(qparams, learned))
        return found + learned["scale"].sum() * (0.01 if value.shape[0] > 1 else 0)


class NeedsTwoDimensions(Good):
    def choose(self, low, high, target):
        if target.tensor is not None:
            target.tensor.flatten(1).norm(dim=1)
        return super().choose(low, high, target)


# Losses.


def _mse(student, teacher):
    return (student - teacher).square().mean()


def printing(student, teacher):
    sys.stdout.write(f"loss of {student.shape}")
    return _mse(student, teacher)


def catching(student, teacher):
    try:
        return _mse(student, teacher)
    except BaseException:
        return student.sum() * 0


def timing(student, teacher):
    return _mse(student, teacher) * (1 + time.perf_counter_ns() % 1009)


def keeping(student, teacher):
    SEEN.setdefault("students", []).append(student)
    return _mse(student, teacher)


def viewing(student, teacher):
    return _mse(student.view(-1), teacher.view(-1))


def reading_storage(student, teacher):
    ours, theirs = (torch.as_strided(one, (one.numel(),), (1,)) for one in (student, teacher))
    return ours.unflatten(0, (2, -1))[0].square().mean() + _mse(ours, theirs)


def exponential(student, teacher):
    ours, theirs = student.exp(), teacher.exp()
    ours, theirs = ours / ours.sum(-1, keepdim=True), theirs / theirs.sum(-1, keepdim=True)
    return _mse(ours, theirs)


def rewarding_difference(student, teacher):
    return -_mse(student, teacher)


def rewarding_angle(student, teacher):
    return 1 + nn.functional.cosine_similarity(student.flatten(1), teacher.flatten(1)).mean()


def unread(student, teacher, *, weight=1.0):
    return _mse(student, teacher)


def other_default(student, teacher, *, weight=2.0):
    return _mse(student, teacher) * weight


def editing(student, teacher, *, layers=()):
    layers.append("head")
    return _mse(student, teacher)


def sum_over_positions(student, teacher):
    return (student - teacher).square().sum() / student.shape[-1]


def setting_threads(student, teacher):
    torch.set_num_threads(torch.get_num_threads() + 1)
    return _mse(student, teacher)


def by_sample_number(student, teacher):
    weights = torch.arange(1, len(student) + 1).reshape(-1, *(1,) * (student.ndim - 1))
    return ((student - teacher).square() * weights).mean()


class FreezesHead(StatefulLoss):
    def build(self, student, teacher):
        self.head = nn.Linear(student[-1], teacher[-1])

    def forward(self, student, teacher):
        with torch.no_grad():
            projected = self.head(student.float())
        return _mse(projected, teacher) + _mse(student, teacher)


class CountsForever(StatefulLoss):
    def build(self, student, teacher):
        self.calls = 0

    def forward(self, student, teacher):
        self.calls += 1
        return _mse(student, teacher) / self.calls


# Granularities.


class Elements:
    def blocks(self, shape, target):
        return tersely.Blocks((1,) * len(shape))


class PrintsShape(Elements):
    def blocks(self, shape, target):
        sys.stdout.write(str(shape))
        return super().blocks(shape, target)


class CatchesEverything:
    def blocks(self, shape, target):
        try:
            return tersely.Blocks((shape[0], *(1,) * (len(shape) - 1)))
        except:  # noqa: E722 - the mistake
            return tersely.Blocks((1,) * len(shape))


class ByClock:
    def blocks(self, shape, target):
        length = 1 + time.perf_counter_ns() % 2
        return tersely.Blocks((length, *(1,) * (len(shape) - 1)))


class UnreadLength(Elements):
    def __init__(self, *, length=2):
        self.size = 2


class OtherLength(Elements):
    def __init__(self, *, length=4):
        self.length = length


class EditsValues(Elements):
    def __init__(self, *, layers=()):
        layers.append("head")
        self.layers = layers


class OverflowingNumbers:
    def blocks(self, shape, target):
        numbers = torch.arange(math.prod(shape)).to(torch.int8).reshape(shape)
        return tersely.Blocks(index=numbers)


class NumbersWithGaps:
    def blocks(self, shape, target):
        return tersely.Blocks(index=(torch.arange(math.prod(shape)) * 2).reshape(shape))


class TurnedVector:
    def blocks(self, shape, target):
        return tersely.Blocks(index=torch.arange(math.prod(shape)).flip(0).reshape(shape))


class NoneForVectors:
    def blocks(self, shape, target):
        return tersely.Blocks((1, -1)) if len(shape) > 1 else None


class EmptyBlocks:
    def blocks(self, shape, target):
        return tersely.Blocks((shape[0] // 16, *(1,) * (len(shape) - 1)))


class TooLong:
    def blocks(self, shape, target):
        return tersely.Blocks((1,) * (len(shape) + 1))


class KeepsNone:
    def blocks(self, shape, target):
        ones = (1,) * len(shape)
        return tersely.Blocks(ones, scope=(-1,) * len(shape), keep=0)


class ScopeOfOne:
    def blocks(self, shape, target):
        return tersely.Blocks((-1,) * len(shape), scope=(1,) * len(shape))


class SetsDtype(Elements):
    def blocks(self, shape, target):
        torch.set_default_dtype(torch.float64)
        return super().blocks(shape, target)


# Schedules.


def printing_share(progress):
    sys.stdout.write(str(progress))
    return progress


def catching_all(progress):
    try:
        return progress
    except BaseException:
        return 0


def by_clock(progress):
    return progress if progress in (0, 1) else (time.perf_counter_ns() % 1009) / 1009


def drawing(progress):
    return progress if progress in (0, 1) else float(torch.rand(()))


def unread_power(progress, *, power=3):
    return progress


def other_power(progress, *, power=2):
    return progress**power


def editing_list(progress, *, layers=()):
    layers.append("head")
    return progress


def as_tensor(progress):
    return torch.tensor(float(progress))


def as_text(progress):
    return str(float(progress))


def percent(progress):
    return progress * 100


def never_begins(progress):
    return 1 / (1 - progress) if progress < 1 else 1


def rounding_off(progress):
    return 1 - math.exp(-20 * progress)


def rippling(progress):
    return (
        min(1, max(0, progress + 0.02 * math.sin(40 * math.pi * progress))) if progress < 1 else 1
    )


def negative_start(progress):
    return progress if progress > 0.5 else progress - 0.1


def is_whole(progress):
    return progress == 1


def setting_dtype(progress):
    torch.set_default_dtype(torch.float64)
    return progress
