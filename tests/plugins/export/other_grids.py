"""Toy quantizers with float zero points and with a table of levels, a toy pruner, and their face."""

import torch

import tersely
from tersely.contracts import UsesFloatZeroPoints, UsesLevels


class Between(UsesFloatZeroPoints):
    """The smallest value is the smallest integer exactly, so zero lies between two."""

    def choose(self, low, high, target):
        qparams = tersely.choose_qparams(low, high, target)
        zero_point = target.quant_min - low.reshape(qparams.scale.shape) / qparams.scale
        return qparams.evolve(zero_point=zero_point)


class Quantiles(UsesLevels):
    """Sixteen levels that lie closer around zero, times the largest magnitude."""

    def choose(self, low, high, target):
        qparams = tersely.choose_qparams(low, high, target)
        scale = torch.maximum(-low, high).clamp_min(1e-9).reshape(qparams.scale.shape)
        even = torch.linspace(-1, 1, 16)
        return qparams.evolve(scale=scale, levels=even * even.abs())


class Largest:
    """Keeps what is largest."""

    def importance(self, target):
        return target.tensor.abs()


class Face:
    """Makes them known as ``between``, ``quantiles`` and ``largest``."""

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [
            tersely.QuantizerInfo(
                name=cls.__name__.lower(), implementation=f"other_grids:{cls.__name__}"
            )
            for cls in (Between, Quantiles)
        ]

    @tersely.hookimpl
    def tersely_pruners(self):
        return [tersely.PrunerInfo(name="largest", implementation="other_grids:Largest")]
