"""PACT, and stochastic rounding."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import tersely
from tersely.contracts import LearnsScales, Penalizes, RoundsAtRandom

_SMALLEST = 1e-6


class Pact(LearnsScales, Penalizes):
    """Choi et al., PACT, 2018: values above a clip become the clip, which is learned.

    The scale is the clip over the steps that lie above the zero point, so that of an unsigned type
    after a ReLU values are 0 to the clip (equation 1), and a clipped value's gradient is the clip's
    (equation 3).

    Args:
        decay: the factor of the sum of squared clips in the loss.
    """

    def __init__(self, *, decay: float = 1e-4) -> None:
        self.decay = decay

    def start(
        self, qparams: tersely.QParams, target: tersely.QuantizationTarget
    ) -> Mapping[str, Tensor]:
        """Return the largest value of the range as the clip, in units of the tensor."""
        return {"clip": qparams.scale * _steps(qparams)}

    def meaning(self, qparams: tersely.QParams, learned: Mapping[str, Tensor]) -> tersely.QParams:
        """Return the scale with which the largest integer stands for the clip."""
        clip = learned["clip"].detach().clamp_min(_SMALLEST)
        return qparams.evolve(scale=clip / _steps(qparams))

    def learned_values(
        self,
        value: Tensor,
        qparams: tersely.QParams,
        learned: Mapping[str, Tensor],
        target: tersely.QuantizationTarget,
    ) -> Tensor:
        """Return clipped and rounded values; the gradient passes rounding as it is."""
        clip = learned["clip"].clamp_min(_SMALLEST)
        if qparams.block_size is not None:
            clip = tersely.expand_blocks(clip, qparams.block_size, value.shape)
        clip = clip.to(value.dtype)
        clipped = torch.where(value < clip, value, clip)
        rounded = tersely.fake_quantize(value.detach(), self.meaning(qparams, learned))
        return clipped + (rounded - clipped).detach()

    def penalty(self, learned: Sequence[Mapping[str, Tensor]], steps: int) -> Tensor:
        """Return the squared clips times the decay."""
        return self.decay * torch.stack([one["clip"].square().sum() for one in learned]).sum()


class Stochastic(RoundsAtRandom):
    """Gupta et al., 2015: up with the probability of what is above the lower step (section 3.1).

    Args:
        seed: what the random numbers start from.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def rounded(
        self,
        value: Tensor,
        qparams: tersely.QParams,
        target: tersely.QuantizationTarget,
        generator: torch.Generator,
    ) -> Tensor:
        """Return values of the grid whose expectation is the value, where it is not clamped."""
        scale, zero_point = qparams.scale, qparams.zero_point
        if qparams.block_size is not None:
            scale = tersely.expand_blocks(scale, qparams.block_size, value.shape)
            zero_point = tersely.expand_blocks(zero_point, qparams.block_size, value.shape)
        position = value.detach().float() / scale
        chance = torch.rand(value.shape, generator=generator, device=value.device)
        integers = position.floor() + (chance < position - position.floor()) + zero_point
        integers = integers.clamp(qparams.quant_min, qparams.quant_max)
        found = ((integers - zero_point) * scale).to(value.dtype)
        return value + (found - value).detach()


def _steps(qparams: tersely.QParams) -> Tensor:
    return (qparams.quant_max - qparams.zero_point).clamp_min(1).to(qparams.scale.dtype)
