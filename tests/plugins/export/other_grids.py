"""Toy quantizers with float zero points and with a table of levels, and a face for them."""

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


class Face:
    """Makes them known as ``between`` and ``quantiles``."""

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [
            tersely.QuantizerInfo(
                name=cls.__name__.lower(), implementation=f"other_grids:{cls.__name__}"
            )
            for cls in (Between, Quantiles)
        ]
