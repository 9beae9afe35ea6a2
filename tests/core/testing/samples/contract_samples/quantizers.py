"""A quantizer that keeps its contract, and one for every way to break it."""

import torch

import tersely


class Good:
    def choose(self, low, high, target):
        return tersely.choose_qparams(low, high, target)


class Tupled(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        return chosen.scale, chosen.zero_point


class OneScale(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        return chosen.evolve(scale=chosen.scale.amax())


class OneZero(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        return chosen.evolve(zero_point=chosen.zero_point.flatten()[:1].reshape(1))


class ZeroScale(Good):
    def choose(self, low, high, target):
        return super().choose(low, high, target).evolve(scale=(high - low) / 4)


class HalfZero(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        return chosen.evolve(zero_point=chosen.zero_point + 0.5)


class OtherDtype(Good):
    def choose(self, low, high, target):
        return super().choose(low, high, target).evolve(dtype="int7", quant_max=63)


class Random(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        return chosen.evolve(scale=chosen.scale + torch.rand_like(chosen.scale))


class Writing(Good):
    def choose(self, low, high, target):
        chosen = super().choose(low, high, target)
        high.add_(1)
        return chosen
