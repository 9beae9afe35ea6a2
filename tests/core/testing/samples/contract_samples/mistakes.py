"""The mistakes that authors make most: state elsewhere, changes in place, modes and flags."""

import torch
from torch import nn

import tersely
from tersely.contracts import (
    LearnsScales,
    ObservesGradients,
    ObservesInputs,
    ObservesRange,
    Simulates,
    Solves,
    SolvesWeights,
    StatefulLoss,
    UsesFloatZeroPoints,
    UsesLevels,
)

SEEN = {}
"""What the mistakes below remember between calls."""


class Magnitude:
    def importance(self, target):
        return target.tensor.detach().abs().float()


# Pruners.


class CachesByShape(Magnitude):
    def importance(self, target):
        return SEEN.setdefault(tuple(target.tensor.shape), super().importance(target))


class CountsCalls(Magnitude):
    def importance(self, target):
        SEEN["calls"] = SEEN.get("calls", 0) + 1
        return super().importance(target) * torch.rand(
            target.tensor.shape, generator=torch.Generator().manual_seed(SEEN["calls"])
        )


class MasksItself(Magnitude):
    def importance(self, target):
        scores = super().importance(target)
        target.tensor.data.mul_(scores > scores.median())
        return scores


class ScoresInHalf(Magnitude):
    def importance(self, target):
        return (target.tensor.detach().half() * 1e6).abs()


class Standardized(Magnitude):
    def importance(self, target):
        scores = super().importance(target)
        return (scores - scores.mean()) / scores.std()


class Transposed(Magnitude):
    def importance(self, target):
        return super().importance(target).transpose(0, 1)


class SwitchesGradients(Magnitude):
    def importance(self, target):
        torch.set_grad_enabled(False)
        return super().importance(target)


class FreezesWeight(Magnitude):
    def importance(self, target):
        for parameter in target.module.parameters():
            parameter.requires_grad_(False)
        return super().importance(target)


class LeavesHook(Magnitude):
    def importance(self, target):
        target.module.register_forward_hook(lambda module, args, output: output * 1.0)
        return super().importance(target)


class LeavesBuffer(Magnitude):
    def importance(self, target):
        target.module.register_buffer("score", super().importance(target))
        return target.module.score


class LeavesEvalMode(Magnitude):
    def importance(self, target):
        target.module.eval()
        return super().importance(target)


class IgnoresNaN(Magnitude):
    def importance(self, target):
        return super().importance(target).log()


class SumsOverOutputs(Magnitude):
    def importance(self, target):
        return super().importance(target).flatten(1).sum(1)


class StateInModule(Magnitude, ObservesInputs):
    def observe_input(self, inputs, target):
        SEEN[target.name] = SEEN.get(target.name, 0) + inputs.detach().abs().sum()
        return {"count": torch.ones(())}

    def importance(self, target):
        scores = super().importance(target)
        return scores * SEEN[target.name] + SEEN[target.name] * scores.flip(0)


class LastBatch(Magnitude, ObservesInputs):
    def observe_input(self, inputs, target):
        self.inputs = inputs.detach()
        return {"count": torch.ones(())}

    def importance(self, target):
        return super().importance(target) * self.inputs.abs().mean()


class MaximumOfInputs(Magnitude, ObservesInputs):
    def observe_input(self, inputs, target):
        return {"most": inputs.detach().abs().amax()}


class GradientInHalf(Magnitude, ObservesGradients):
    def observe_gradient(self, gradient, target):
        return {"squares": gradient.half() ** 2}

    def importance(self, target):
        return 1 / target.observed["squares"].float()


class SolvesMore(Solves):
    def solve(self, target, select):
        magnitude = target.tensor.detach().abs().float()
        kept = magnitude > magnitude.median()
        return tersely.Solution(kept=kept, tensor=target.tensor.detach() * 2)


# Quantizers.


class Good:
    def choose(self, low, high, target):
        return tersely.choose_qparams(low, high, target)


class CachesScale:
    def choose(self, low, high, target):
        key = (tuple(low.shape), target.dtype, target.scheme)
        return SEEN.setdefault(key, tersely.choose_qparams(low, high, target))


class CachesByName:
    def choose(self, low, high, target):
        return SEEN.setdefault(
            (target.name, target.dtype, target.scheme, tuple(low.shape)),
            tersely.choose_qparams(low, high, target),
        )


class ScalesOfWeightsAlone(Good):
    def choose(self, low, high, target):
        magnitude = target.tensor.abs().amax()
        return super().choose(torch.minimum(low, -magnitude), high, target)


class HalfScale(Good):
    def choose(self, low, high, target):
        found = super().choose(low, high, target)
        return found.evolve(scale=found.scale.half())


class TinyScale(Good):
    def choose(self, low, high, target):
        found = super().choose(low, high, target)
        return found.evolve(scale=(high - low) / 1e6 + 1e-12)


class IgnoresZero(Good):
    def choose(self, low, high, target):
        scale = (high - low) / (target.quant_max - target.quant_min)
        zero = (target.quant_min - low / scale).round()
        return super().choose(low, high, target).evolve(scale=scale, zero_point=zero)


class FreezesModule(Good):
    def choose(self, low, high, target):
        for parameter in target.module.parameters():
            parameter.requires_grad_(False)
        return super().choose(low, high, target)


class QuantizesItself(Good):
    def choose(self, low, high, target):
        found = super().choose(low, high, target)
        for parameter in target.module.parameters(recurse=False):
            parameter.data.round_()
        return found


class LeavesHookOnModule(Good):
    def choose(self, low, high, target):
        target.module.register_forward_hook(lambda module, args, output: output)
        return super().choose(low, high, target)


class SwitchesEvalMode(Good):
    def choose(self, low, high, target):
        target.module.eval()
        return super().choose(low, high, target)


class RoundsInSimulation(Good, Simulates):
    def simulate(self, value, qparams, target):
        return torch.round(value / 0.1) * 0.1

    def integers(self, value, qparams, target):
        return torch.round(value / 0.1).to(torch.int8), qparams


class FailsOnInputs(Good):
    def choose(self, low, high, target):
        if target.tensor is None:
            raise AttributeError("NoneType has no abs")
        return super().choose(low, high, target)


class SimulatesWeightsAlone(Good, Simulates):
    def simulate(self, value, qparams, target):
        size = qparams.scale.shape[0] if qparams.scale.ndim else 1
        return value + (torch.round(value) - value).detach() * size * 0 + value.sum(0) * 0

    def integers(self, value, qparams, target):
        return torch.round(value).to(torch.int8), qparams


class BranchesOnValues(Good, Simulates):
    def simulate(self, value, qparams, target):
        if bool((value > 1e9).any()):
            return value
        return tersely.fake_quantize(value, qparams)

    def integers(self, value, qparams, target):
        return tersely.quantize(value, qparams), qparams


class LearnsInDouble(Good, LearnsScales):
    def start(self, qparams, target):
        return {"scale": qparams.scale.clone()}

    def meaning(self, qparams, learned):
        return qparams.evolve(scale=learned["scale"].detach().abs().clamp_min(1e-6))

    def learned_values(self, value, qparams, learned, target):
        found = tersely.fake_quantize(value.double(), self.meaning(qparams, learned))
        return found + learned["scale"].sum().double() * 0


class ObserverKeepsState(Good, ObservesRange):
    def observer(self, target):
        return _Keeping()


class _Keeping:
    def __init__(self):
        self.low = self.high = None

    def observe(self, values, size):
        low, high = values.aminmax()
        self.low = low if self.low is None else torch.minimum(low, self.low)
        self.high = high if self.high is None else torch.maximum(high, self.high)
        return {"seen": torch.ones(())}

    def merge(self, before, batch):
        return before

    def join(self, parts):
        return parts[0]

    def range(self, statistics, target):
        return self.low.reshape(()), self.high.reshape(())


class SolvesInHalf(Good, SolvesWeights):
    def solve(self, target):
        low, high = target.tensor.aminmax()
        qparams = self.choose(low, high, target)
        return tersely.QuantizedWeight(target.tensor.half(), qparams)


class SolvesTransposed(Good, SolvesWeights):
    def solve(self, target):
        low, high = target.tensor.aminmax()
        qparams = self.choose(low, high, target)
        return tersely.QuantizedWeight(target.tensor.transpose(0, 1), qparams)


class SolvesElsewhere(Good, SolvesWeights):
    def solve(self, target):
        low, high = target.tensor.aminmax()
        SEEN["solved"] = self.choose(low, high, target)
        target.module.register_buffer("codes", target.tensor.round())
        return tersely.QuantizedWeight(target.tensor.clone(), SEEN["solved"])


class FallingLevels(UsesLevels, Good):
    def choose(self, low, high, target):
        levels = torch.tensor([1.0, 0.0, -1.0])
        return super().choose(low, high, target).evolve(levels=levels)


class InfiniteZero(UsesFloatZeroPoints, Good):
    def choose(self, low, high, target):
        found = super().choose(low, high, target)
        return found.evolve(zero_point=low / (high - low))


# Losses.


def _mse(student, teacher):
    return (student - teacher).square().mean()


def mean_over_features(student, teacher):
    return (student - teacher).square().sum(0).mean()


def caching(student, teacher):
    return _mse(student, SEEN.setdefault(tuple(student.shape), teacher))


def counting(student, teacher):
    SEEN["calls"] = SEEN.get("calls", 0) + 1
    return _mse(student, teacher) / SEEN["calls"]


def in_place(student, teacher):
    student.data.sub_(teacher)
    return student.square().mean()


def normalizing_teacher(student, teacher):
    teacher.div_(teacher.norm())
    return _mse(student, teacher)


def teaching_teacher(student, teacher):
    return (student.detach() - teacher).square().mean()


def in_double(student, teacher):
    return _mse(student.double(), teacher.double()).detach().requires_grad_()


def log_of_probabilities(student, teacher):
    return nn.functional.kl_div(student.log(), teacher, reduction="batchmean")


def correlation(student, teacher):
    student = student.flatten(1) - student.flatten(1).mean(1, keepdim=True)
    teacher = teacher.flatten(1) - teacher.flatten(1).mean(1, keepdim=True)
    return 1 - ((student * teacher).sum(1) / (student.norm(dim=1) * teacher.norm(dim=1))).mean()


def dropping(student, teacher):
    return _mse(nn.functional.dropout(student, 0.5), teacher)


def squares_in_half(student, teacher):
    return ((student - teacher) * 100).square().sum() / student.shape[0] * 1e-4 / student[0].numel()


def gradients_off(student, teacher):
    torch.set_grad_enabled(False)
    return _mse(student, teacher)


def broadcasting(student, teacher):
    return (student.unsqueeze(1) - teacher.unsqueeze(0)).square().sum((0, 1)).mean()


class PlainAttribute(StatefulLoss):
    def build(self, student, teacher):
        self.mean = torch.zeros(())

    def forward(self, student, teacher):
        self.mean = 0.5 * self.mean + 0.5 * student.detach().mean()
        return _mse(student, teacher) + self.mean.square()


class GrowingBank(StatefulLoss):
    def build(self, student, teacher):
        self.register_buffer("bank", torch.zeros(0, *student[1:]))

    def forward(self, student, teacher):
        self.bank = torch.cat([self.bank, student.detach()])
        return _mse(student, teacher)


class LateHead(StatefulLoss):
    def forward(self, student, teacher):
        if not hasattr(self, "head"):
            self.head = nn.Linear(student.shape[-1], student.shape[-1])
        return _mse(self.head(student), teacher)


class Extra(StatefulLoss):
    def get_extra_state(self):
        return {"calls": 1}

    def set_extra_state(self, state):
        pass

    def forward(self, student, teacher):
        return _mse(student, teacher)


class NotSaved(StatefulLoss):
    def build(self, student, teacher):
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, student, teacher):
        self.calls += 1
        return _mse(student, teacher) * self.calls


# Granularities.


class Alternates:
    def blocks(self, shape, target):
        SEEN["turn"] = not SEEN.get("turn", False)
        return tersely.Blocks((1 if SEEN["turn"] else -1,) * len(shape))


class ByFirstShape:
    def blocks(self, shape, target):
        return tersely.Blocks(SEEN.setdefault("size", (1,) * len(shape)))


class Overlaps:
    def blocks(self, shape, target):
        return tersely.Blocks((1,) * len(shape), scope=(3,) * len(shape), keep=5)


class Floats:
    def blocks(self, shape, target):
        return tersely.Blocks((shape[0] / 2,) + (-1,) * (len(shape) - 1))


# Schedules.


def jumping_back(progress):
    return progress if progress < 0.5 else progress / 2 + 0.5 if progress == 1 else 0.4


def remembering_progress(progress):
    SEEN["last"] = max(SEEN.get("last", 0), float(progress))
    return SEEN["last"]


def above_one(progress):
    return progress * 1.5


def nothing_at_all(progress):
    return None
