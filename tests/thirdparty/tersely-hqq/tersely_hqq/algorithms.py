"""Half-quadratic quantization, NF4, and runs along the last dimension."""

import torch

import tersely
from tersely.contracts import SolvesWeights, UsesFloatZeroPoints, UsesLevels

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The levels of Dettmers et al., appendix E."""


class Hqq(UsesFloatZeroPoints, SolvesWeights):
    """Badri and Shaji, 2023: alternates between a sparse error and the zero point that fits it.

    All iterations are made; the authors' code stops at the first that does not help.

    Args:
        iterations: how often the zero point moves.
        norm: the exponent p of the norm of the error.
        beta: how closely the sparse error follows the error at first.
        growth: the factor of ``beta`` from one iteration to the next.
    """

    def __init__(
        self,
        *,
        iterations: int = 20,
        norm: float = 0.7,
        beta: float = 10.0,
        growth: float = 1.01,
    ) -> None:
        self.iterations, self.norm, self.beta, self.growth = iterations, norm, beta, growth

    def solve(self, target: tersely.QuantizationTarget) -> tersely.QuantizedWeight | None:
        """Return the weight on the grid of its zero points; None where they have to be whole."""
        if not target.has_float_zero_point or target.tensor is None:
            return None
        weight, size = target.tensor.detach(), target.blocks.size
        wide, beta = weight.float(), self.beta
        low, high = tersely.block_range(wide, size)
        scale = ((high - low) / (target.quant_max - target.quant_min)).clamp_min(1e-8)
        zero_point = target.quant_min - low / scale
        count = wide.numel() / scale.numel()
        steps = tersely.expand_blocks(scale, size, wide.shape)
        for _ in range(self.iterations):
            offset = tersely.expand_blocks(zero_point, size, wide.shape)
            integers = (wide / steps + offset).round().clamp(target.quant_min, target.quant_max)
            error = self._shrunk(wide - (integers - offset) * steps, beta)
            zero_point = tersely.sum_blocks(integers - (wide - error) / steps, size) / count
            beta *= self.growth
        chosen = tersely.choose_qparams(low, high, target)
        qparams = chosen.evolve(
            scale=scale.reshape(chosen.scale.shape),
            zero_point=zero_point.reshape(chosen.scale.shape),
        )
        return tersely.QuantizedWeight(tersely.fake_quantize(weight, qparams), qparams)

    def _shrunk(self, error: torch.Tensor, beta: float) -> torch.Tensor:
        magnitude = error.abs()
        return error.sign() * (magnitude - magnitude.pow(self.norm - 1) / beta).clamp_min(0)


class NormalFloat4(UsesLevels):
    """Dettmers et al., QLoRA, 2023: sixteen levels times the largest magnitude of a block."""

    def choose(
        self, low: torch.Tensor, high: torch.Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        """Return the largest magnitude of each block as its scale."""
        chosen = tersely.choose_qparams(low, high, target)
        scale = torch.maximum(-low, high).clamp_min(1e-12).reshape(chosen.scale.shape)
        return chosen.evolve(scale=scale, levels=torch.tensor(NF4))


class Run:
    """A number of neighbours along the last dimension."""

    def __init__(self, *, length: int) -> None:
        self.length = length

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return blocks of one row and ``length`` columns."""
        return tersely.Blocks((*(1,) * (len(shape) - 1), self.length))
