"""One algorithm of each kind, with the names and signatures of plugin API 1.1."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TypeVar

import torch

import tersely
from tersely.contracts import ObservesInputs

Progress = TypeVar("Progress", float, Fraction)


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


class InputNorm(ObservesInputs):
    """Magnitude times the squared length of the input, which is observed."""

    def observe_input(
        self, inputs: torch.Tensor, target: tersely.PruningTarget
    ) -> Mapping[str, torch.Tensor]:
        """Return the sum of squares of every input feature."""
        return {"squares": inputs.square().flatten(0, -2).sum(0)}

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        """Return scores of the tensor's shape; larger means keep."""
        return target.tensor.detach().abs() * target.observed["squares"]


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


def square(progress: Progress) -> Progress:
    """Return the share of the final ratio."""
    return progress * progress


class Scaled(torch.nn.Module):
    """A module type of this package, with a parameter of its own name."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = torch.nn.Parameter(torch.tensor([1.0, 4.0, 2.0, 3.0]))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the inputs, scaled."""
        return inputs * self.scales
