"""A pruner, a granularity, a quantizer and a loss, each as small as it can be."""

import math

import torch

import tersely


class RelativeImportance:
    """Share of the row plus share of the column (Zhang et al., ICLR 2024)."""

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = power

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        """Return scores of the tensor's shape; larger means keep."""
        magnitude = target.tensor.detach().abs().flatten(1)
        of_row = magnitude / magnitude.sum(1, keepdim=True).clamp_min(1e-12)
        of_column = magnitude / magnitude.sum(0, keepdim=True).clamp_min(1e-12)
        return (of_row + of_column).pow(self.power).reshape(target.tensor.shape)


class RowPair:
    """Two neighbouring rows share one decision."""

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return the blocks; without a scope the ratio counts over the whole tensor."""
        return tersely.Blocks(size=(2,) + (-1,) * (len(shape) - 1))


class PowerOfTwo:
    """Scales rounded up to powers of two, so that rescaling is a shift."""

    def choose(
        self, low: torch.Tensor, high: torch.Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        """Return scale and zero point for the observed range per block."""
        qparams = tersely.choose_qparams(low, high, target)
        return qparams.evolve(scale=torch.exp2(torch.ceil(torch.log2(qparams.scale))))


def log_cosh(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean log-cosh of the difference, without overflow."""
    difference = student - teacher
    return (difference + torch.nn.functional.softplus(-2 * difference) - math.log(2)).mean()
