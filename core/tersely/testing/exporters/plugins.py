"""Plugins that prune and quantize the cases of the contract of exporters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.scales import choose_qparams
from tersely.contracts.pruner import PruningTarget
from tersely.contracts.quantized_grids import UsesFloatZeroPoints, UsesLevels
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
MAGNITUDE = "contract_magnitude"
NUMBERED = "contract_numbered"


class Nearest:
    """A quantizer that rounds to nearest with the specification's own scales."""


class Levels(UsesLevels):
    """A quantizer with a table of four levels that are no whole steps."""

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
