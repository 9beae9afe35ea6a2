"""Plugins that prune and quantize the cases of the contract of exporters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tersely.arithmetic.affine import fake_quantize
from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.scales import choose_qparams
from tersely.contracts.abilities import ObservesInputs
from tersely.contracts.pruner import PruningTarget
from tersely.contracts.quantized_grids import UsesFloatZeroPoints, UsesLevels
from tersely.contracts.quantized_weights import Equalizes, QuantizedWeight, SolvesWeights
from tersely.contracts.quantizer import QuantizationTarget
from tersely.contracts.target_plan import TargetPlan
from tersely.registry.descriptors import GranularityInfo, PrunerInfo, QuantizerInfo
from tersely.registry.hookspecs import hookimpl
from tersely.registry.registry import registry

NEAREST = "contract_nearest"
BY_CHANNEL = "contract_nearest_by_channel"
LEVELS = "contract_levels"
OTHER_LEVELS = "contract_other_levels"
BETWEEN = "contract_between"
FACTORS = "contract_factors"
OTHER_FACTORS = "contract_other_factors"
MAGNITUDE = "contract_magnitude"
NUMBERED = "contract_numbered"


class Nearest:
    """A quantizer that rounds to nearest with the specification's own scales."""


class Levels(UsesLevels):
    """A quantizer with a table of four levels that are not whole steps."""

    table: tuple[float, ...] = (-1.0, -0.25, 0.125, 1.0)

    def choose(self, low: Tensor, high: Tensor, target: QuantizationTarget) -> QParams:
        """Return the largest magnitude of each block as its scale.

        Args:
            low: the least value of each block.
            high: the largest value of each block.
            target: the target.
        """
        chosen = choose_qparams(low, high, target)
        scale = torch.maximum(-low, high).reshape(chosen.scale.shape)
        return chosen.evolve(scale=scale, levels=torch.tensor(self.table))


class OtherLevels(Levels):
    """The same thresholds between other levels, so that indices are the same."""

    table = (-0.95, -0.3, 0.175, 0.95)


class Between(UsesFloatZeroPoints):
    """A quantizer whose zero points are half a step off integers."""

    def choose(self, low: Tensor, high: Tensor, target: QuantizationTarget) -> QParams:
        """Return the specification's scales, and zero points between integers.

        Args:
            low: the least value of each block.
            high: the largest value of each block.
            target: the target.
        """
        chosen = choose_qparams(low, high, target)
        return chosen.evolve(zero_point=chosen.zero_point.float() + 0.5)


class Factors(ObservesInputs, Equalizes, SolvesWeights):
    """A quantizer of weights times factors, by which their inputs are divided."""

    least: float = 0.5

    def observe_input(self, inputs: Tensor, target: QuantizationTarget) -> dict[str, Tensor]:
        """Return something: factors are chosen for inputs that were observed.

        Args:
            inputs: the module's input.
            target: the weight.
        """
        return {"largest": inputs.abs().max()}

    def input_scales(self, targets: Sequence[QuantizationTarget]) -> Tensor:
        """Return the factors of the algorithm.

        Args:
            targets: weights that read one input.
        """
        return torch.linspace(self.least, 2, _weight_of(targets[0]).shape[1])

    def solve_scaled(self, target: QuantizationTarget, input_scale: Tensor) -> QuantizedWeight:
        """Return a weight times the same factors, whatever those of the algorithm are.

        Args:
            target: the weight.
            input_scale: the factors of the algorithm.
        """
        weight = _weight_of(target)
        scaled = weight * torch.linspace(0.5, 2, weight.shape[1])
        qparams = choose_qparams(scaled.min().reshape(1), scaled.max().reshape(1), target)
        return QuantizedWeight(fake_quantize(scaled, qparams), qparams, input_scale)

    def solve(self, target: QuantizationTarget) -> QuantizedWeight:
        """Return what it does of one weight alone.

        Args:
            target: the weight.
        """
        return self.solve_scaled(target, self.input_scales([target]))


class OtherFactors(Factors):
    """The same integers and scales with other factors."""

    least = 1.0


def _weight_of(target: QuantizationTarget) -> Tensor:
    assert target.tensor is not None  # a weight has one
    return target.tensor.detach()


class Magnitude:
    """A pruner of small weights."""

    def importance(self, target: PruningTarget) -> Tensor:
        """Return magnitudes.

        Args:
            target: the target.
        """
        return target.tensor.detach().abs()


class Numbered:
    """A granularity of two blocks: the elements at even places, and the others."""

    def blocks(self, shape: tuple[int, ...], target: TargetPlan) -> Blocks:
        """Return the blocks.

        Args:
            shape: the target's shape.
            target: the target.
        """
        return Blocks(index=torch.arange(shape[-1]).remainder(2).expand(shape))


class _Face:
    @hookimpl
    def tersely_quantizers(self) -> list[QuantizerInfo]:
        def info(name: str, implementation: str, granularity: str) -> QuantizerInfo:
            return QuantizerInfo(
                name=name,
                implementation=f"{__name__}:{implementation}",
                needs="activations",
                summary="Rounds to nearest.",
                default_granularity=granularity,
            )

        return [
            info(NEAREST, "Nearest", "tensor"),
            info(BY_CHANNEL, "Nearest", "output_channel"),
            info(LEVELS, "Levels", "tensor"),
            info(OTHER_LEVELS, "OtherLevels", "tensor"),
            info(BETWEEN, "Between", "tensor"),
            info(FACTORS, "Factors", "tensor"),
            info(OTHER_FACTORS, "OtherFactors", "tensor"),
        ]

    @hookimpl
    def tersely_pruners(self) -> list[PrunerInfo]:
        reference = f"{__name__}:Magnitude"
        return [PrunerInfo(name=MAGNITUDE, implementation=reference, summary="Magnitude.")]

    @hookimpl
    def tersely_granularities(self) -> list[GranularityInfo]:
        reference = f"{__name__}:Numbered"
        return [GranularityInfo(name=NUMBERED, implementation=reference, summary="Even and odd.")]


@contextmanager
def case_plugins() -> Iterator[None]:
    """Provide them inside of a block: the contract holds also where no plugin is installed."""
    name = registry().register(_Face(), name="tersely-contract")
    try:
        yield
    finally:
        registry().unregister(name)
