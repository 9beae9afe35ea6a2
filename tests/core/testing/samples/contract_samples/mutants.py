"""One plugin for each way to be wrong that only shows when its abilities are used."""

import random

import torch

import tersely
from tersely.contracts import (
    CorrectsBias,
    Equalizes,
    FollowsTraining,
    Grows,
    Learns,
    LearnsScales,
    ObservesCurvature,
    ObservesDenseGradients,
    ObservesGradients,
    ObservesInputs,
    ObservesRange,
    OrdersInputs,
    Penalizes,
    ScoresModel,
    Simulates,
    Solves,
    SolvesWeights,
    StatefulLoss,
)


class Magnitude:
    def importance(self, target):
        return target.tensor.detach().abs().float()


# Pruners.


class ShareOfRow(Magnitude):
    def importance(self, target):
        rows = super().importance(target).flatten(1)
        return (rows / rows.sum(1, keepdim=True)).reshape(target.tensor.shape)


class Reseeding(Magnitude):
    def importance(self, target):
        torch.manual_seed(0)
        return super().importance(target) + torch.rand(target.tensor.shape) * 1e-9


class PythonDice(Magnitude):
    def importance(self, target):
        random.seed(0)
        return super().importance(target) + random.random()


class MeanOfInputs(Magnitude, ObservesInputs):
    def observe_input(self, inputs, target):
        return {"seen": inputs.detach().abs().mean()}


class WritesInputs(Magnitude, ObservesInputs):
    def observe_input(self, inputs, target):
        return {"seen": inputs.detach().abs_().sum()}


class Remembers(Magnitude, ObservesInputs):
    def __init__(self):
        self.seen = 0.0

    def observe_input(self, inputs, target):
        self.seen += float(inputs.square().sum())
        return {"seen": inputs.square().sum()}

    def importance(self, target):
        scores = super().importance(target)
        return scores if self.seen > 0 else -scores


class KeepsGradient(Magnitude, ObservesGradients):
    def observe_gradient(self, gradient, target):
        return {"gradient": gradient}


class WritesGradient(Magnitude, ObservesGradients):
    def observe_gradient(self, gradient, target):
        return {"gradient": gradient.abs_().clone()}


class DividesByGradient(Magnitude, ObservesGradients):
    def observe_gradient(self, gradient, target):
        return {"gradient": gradient / gradient.abs().amax()}


class NeedsGradientsFirst(Magnitude, ObservesDenseGradients):
    def observe_gradient(self, gradient, target):
        return {"gradient": gradient.clone()}

    def importance(self, target):
        return super().importance(target) + target.observed["gradient"].abs()


class ScoresFew(ScoresModel):
    def score_model(self, model, targets):
        return [target.tensor.detach().abs() for target in targets[1:]]


class DrawsScores(ScoresModel):
    def score_model(self, model, targets):
        return [torch.rand(target.tensor.shape) for target in targets]


class FreesGraph(Magnitude, ObservesCurvature):
    def observe_curvature(self, curvature, targets):
        found = torch.autograd.grad(curvature.loss, list(curvature.parameters))
        return [{"gradient": one} for one in found]


class DividesByCurvature(Magnitude, ObservesCurvature):
    def observe_curvature(self, curvature, targets):
        ones = [torch.ones_like(one) for one in curvature.parameters]
        return [{"inverse": 1 / one} for one in curvature.times(ones)]


class RepeatsInputs(Magnitude, OrdersInputs):
    def input_order(self, target):
        return torch.zeros(target.tensor.shape[target.plan.input_dim], dtype=torch.int64)


class Shuffles(Magnitude, OrdersInputs):
    def input_order(self, target):
        return torch.randperm(target.tensor.shape[target.plan.input_dim])


class Blind(Magnitude, Learns):
    def start(self, target):
        return {"scores": torch.zeros_like(target.tensor)}

    def masked(self, value, mask, learned):
        return value if mask is None else value * mask


class Doubles(Blind):
    def masked(self, value, mask, learned):
        value = value * (1 + learned["scores"])
        return (value if mask is None else value * mask).double()


class LongPenalty(Magnitude, Penalizes):
    def penalty(self, learned, steps):
        return torch.ones(3)


class NoPenalty(Magnitude, Penalizes):
    def penalty(self, learned, steps):
        return torch.tensor(1.0) / steps


class Shrinks(Magnitude, Grows):
    def factor(self, steps):
        return 1 / (1 + steps)


class NeverDone(Magnitude, Grows):
    def factor(self, steps):
        return min(steps / 100, 0.9)


class SolvesInPlace(Solves):
    def solve(self, target, choose):
        kept = choose(target.tensor.detach().abs().flatten(1)).reshape(target.tensor.shape)
        target.tensor.mul_(kept)
        return tersely.Solution(kept=kept, tensor=target.tensor.detach().clone())


class SolvesHalf(Solves):
    def solve(self, target, choose):
        kept = torch.ones_like(target.tensor, dtype=torch.bool)
        kept.view(-1)[0] = False
        return tersely.Solution(kept=kept, tensor=target.tensor.detach().clone())


# Quantizers.


class Chooses:
    def choose(self, low, high, target):
        return tersely.choose_qparams(low, high, target)


class Draws(Chooses):
    def choose(self, low, high, target):
        torch.manual_seed(0)
        return super().choose(low, high, target)


class LiesAboutIntegers(Chooses, Simulates):
    def simulate(self, value, qparams, target):
        return tersely.fake_quantize(value, qparams)

    def integers(self, value, qparams, target):
        return torch.zeros(value.shape, dtype=torch.int8), qparams


class FloatIntegers(LiesAboutIntegers):
    def integers(self, value, qparams, target):
        return value, qparams


class SimulatesInFloat(LiesAboutIntegers):
    def simulate(self, value, qparams, target):
        return tersely.fake_quantize(value, qparams).float()


class StopsGradients(LiesAboutIntegers):
    def simulate(self, value, qparams, target):
        return tersely.fake_quantize(value, qparams).detach()


class LearnsNothing(Chooses, LearnsScales):
    def start(self, qparams, target):
        return {"scale": qparams.scale.clone()}

    def meaning(self, qparams, learned):
        return qparams.evolve(scale=learned["scale"].detach().abs().clamp_min(1e-6))

    def learned_values(self, value, qparams, learned, target):
        return tersely.fake_quantize(value, self.meaning(qparams, learned))


class NegativeScale(LearnsNothing):
    def meaning(self, qparams, learned):
        return qparams.evolve(scale=learned["scale"])


class MeansOtherwise(LearnsNothing):
    def learned_values(self, value, qparams, learned, target):
        return value * learned["scale"].sum() / learned["scale"].detach().sum()


class SolvesNaN(Chooses, SolvesWeights):
    def solve(self, target):
        low, high = torch.aminmax(target.tensor.detach())
        qparams = tersely.choose_qparams(low.reshape(()), high.reshape(()), target)
        return tersely.QuantizedWeight(target.tensor.detach() / 0, qparams)


class WritesWhileSolving(SolvesNaN):
    def solve(self, target):
        target.tensor.mul_(0.5)


class SolvesOffGrid(SolvesNaN):
    def solve(self, target):
        low, high = torch.aminmax(target.tensor.detach())
        qparams = tersely.choose_qparams(low.reshape(()), high.reshape(()), target)
        return tersely.QuantizedWeight(target.tensor.detach().clone(), qparams.evolve(quant_max=7))


class Inverted(Chooses, ObservesRange):
    def observer(self, target):
        return self

    def observe(self, values, size):
        return {"low": tersely.sum_blocks(values, size).abs() + 1}

    def merge(self, before, batch):
        return before

    def join(self, parts):
        return parts[0]

    def range(self, statistics, target):
        return statistics["low"], -statistics["low"]


class NeverForgets(Chooses, FollowsTraining):
    decay, start_step, freeze_step = 1.5, 0, None


class ZeroFactors(Chooses, Equalizes, ObservesInputs):
    def observe_input(self, inputs, target):
        return {"count": torch.tensor(float(len(inputs)))}

    def input_scales(self, targets):
        return torch.zeros(targets[0].tensor.shape[1])

    def solve_scaled(self, target, input_scale):
        low, high = torch.aminmax(target.tensor)
        return tersely.QuantizedWeight(
            target.tensor, tersely.choose_qparams(low.reshape(()), high.reshape(()), target)
        )


class CorrectsOne(Chooses, CorrectsBias, ObservesInputs):
    def observe_input(self, inputs, target):
        return {"count": torch.tensor(float(len(inputs)))}

    def bias_correction(self, target, quantized):
        return torch.zeros(1)


# Losses.


SEEN = []


def remembering(student, teacher):
    SEEN.append(student.detach().mean())
    return (student - teacher).square().mean() + len(SEEN)


def refusing(student, teacher):
    raise ValueError("no shape will do")


class Bank(StatefulLoss):
    """A good one: the last batch beside a head."""

    def build(self, student, teacher):
        self.head = torch.nn.Linear(student[-1], teacher[-1])
        self.register_buffer("last", torch.zeros(()))

    def forward(self, student, teacher):
        student, teacher = student.float(), teacher.float()
        before = self.last.clone()
        self.last = self.kept(student)
        return (self.head(student) - teacher).square().mean() + (student.mean() - before).square()

    def kept(self, student):
        return student.detach().mean()


class KeepsGraph(Bank):
    def kept(self, student):
        return student.mean()


class Unsaved(Bank):
    def build(self, student, teacher):
        super().build(student, teacher)
        self.register_buffer("last", torch.zeros(()), persistent=False)


class DeadHead(Bank):
    def build(self, student, teacher):
        super().build(student, teacher)
        self.idle = torch.nn.Parameter(torch.zeros(3))


def sum_of_squares(student, teacher):
    return (student - teacher).square().sum()


def root(student, teacher):
    return (student - teacher).square().mean().sqrt()


def cosine_by_hand(student, teacher):
    student, teacher = student.flatten(1), teacher.flatten(1)
    products = (student * teacher).sum(1)
    return (1 - products / (student.norm(dim=1) * teacher.norm(dim=1))).mean()


def overflowing(student, teacher):
    return ((student - teacher) * 300).square().mean()


def dicing(student, teacher):
    torch.manual_seed(1)
    return (student - teacher).square().mean() * (1 + torch.rand(()))


# Schedules.


def overshooting(progress):
    return progress * 1.1


def unfinished(progress):
    return float(progress) * 0.999


def waving(progress):
    return 1.0 if progress == 1 else (0.5 if progress < 0.3 else 0.4)


# Granularities.


class NeedsHeads:
    def __init__(self, *, heads):
        self.heads = heads

    def blocks(self, shape, target):
        if shape[0] % self.heads:
            raise ValueError("heads do not divide")
        return tersely.Blocks((shape[0] // self.heads,) + (-1,) * (len(shape) - 1))


class Failing:
    def blocks(self, shape, target):
        raise RuntimeError("broken")
