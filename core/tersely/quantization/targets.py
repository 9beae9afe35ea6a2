"""Quantized targets: how each is cut, what it can hold, and how its algorithm sees it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks, tensor_blocks
from tersely.arithmetic.quantized_types import FLOAT8, quantized_range
from tersely.contracts.quantized_grids import UsesFloatZeroPoints, UsesLevels
from tersely.contracts.quantizer import QuantizationTarget
from tersely.contracts.target_plan import TargetPlan
from tersely.document.recipe import Stage
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import PlanError
from tersely.instrument.masks.mask_transforms import spatial_dims
from tersely.instrument.scales.block_cuts import BlockCut
from tersely.instrument.scales.quantizing import Grid
from tersely.planning.selecting.classes import original_class
from tersely.planning.stages.descriptors import descriptor_of
from tersely.planning.targets.granularity import divide, in_force
from tersely.registry.descriptors import QuantizerInfo


def grid_of(plan: TargetPlan, algorithm: object = None) -> Grid:
    """Return the values that a target can take when quantized.

    Args:
        plan: a quantization target.
        algorithm: what quantizes it, where that may take other than whole steps.
    """
    setting = plan.quantization
    dtype, scheme = setting.quant_dtype, setting.quant_scheme
    limits = quantized_range(dtype)
    is_integer = dtype not in FLOAT8
    return Grid(
        dtype,
        scheme,
        limits.quant_min,
        limits.quant_max,
        has_float_zero_point=(
            isinstance(algorithm, UsesFloatZeroPoints)
            and algorithm.float_zero_points
            and is_integer
            and scheme == "affine"
        ),
        has_levels=isinstance(algorithm, UsesLevels) and algorithm.level_tables and is_integer,
    )


def info_of(plan: TargetPlan, stages: Sequence[Stage]) -> QuantizerInfo:
    """Return the descriptor of a target's algorithm."""
    info = descriptor_of(stages[plan.stage])
    if not isinstance(info, QuantizerInfo):
        raise PlanError(f"{plan.name} has no quantizer; plan again", **plan.place)
    return info


def cut_of(bound: BoundTarget, stages: Sequence[Stage]) -> BlockCut:
    """Return how a target is cut into blocks that share a scale.

    Args:
        bound: a quantization target.
        stages: the recipe's stages.

    Raises:
        PlanError: its granularity does not suit an input or output.
    """
    plan = bound.plan
    if not bound.is_activation:
        if plan.blocks is None:
            raise PlanError(f"{plan.name} has no blocks; plan again", **plan.place)
        if all(size == -1 for size in plan.blocks.size):
            return BlockCut("tensor")
        return BlockCut("fixed", fixed=plan.blocks.size)
    info = info_of(plan, stages)
    found = in_force(plan.quantization.granularity, plan.kind, info)
    spatial = spatial_dims(plan.module_type) if plan.channel_dim == 1 else None
    if found.is_whole or found.is_by_channel:
        return BlockCut("tensor" if found.is_whole else "channel", plan.channel_dim, spatial)
    if found.is_dynamic:
        return BlockCut("token")
    return BlockCut("fixed", plan.channel_dim, spatial, size=functools.partial(_size, plan, info))


def _size(plan: TargetPlan, info: QuantizerInfo, sample: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return divide(plan.quantization.granularity, plan, (1, *sample), info).size[1:]
    except ValueError as error:
        raise PlanError(f"{plan.origin.path}: {plan.name}: {error}", **plan.place) from None


def target_of(
    bound: BoundTarget,
    grid: Grid,
    *,
    tensor: Tensor | None = None,
    size: tuple[int, ...] | None = None,
    observed: Mapping[str, Tensor] | None = None,
    statistics: Mapping[str, Tensor] | None = None,
) -> QuantizationTarget:
    """Return a target as its algorithm sees it.

    Args:
        bound: the target.
        grid: the values it can take.
        tensor: its values, for a parameter or buffer.
        size: the block size of an input or output where it is known.
        observed: what the algorithm observed of its module's inputs.
        statistics: what its observer gathered.
    """
    blocks = bound.plan.blocks
    if blocks is None:
        blocks = tensor_blocks(1) if size is None else Blocks(size)
    scheme: Literal["symmetric", "affine"] = "affine" if grid.scheme == "affine" else "symmetric"
    return QuantizationTarget(
        plan=bound.plan,
        quant_min=grid.quant_min,
        quant_max=grid.quant_max,
        dtype=grid.dtype,
        scheme=scheme,
        blocks=blocks,
        module=bound.module,
        tensor=tensor,
        observed=observed or {},
        statistics=statistics or {},
        has_float_zero_point=grid.has_float_zero_point,
        has_levels=grid.has_levels,
    )


_READERS = frozenset((nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
"""Modules that are known to leave their input as it is."""


def is_comparable(bound: BoundTarget, cut: BlockCut) -> bool:
    """Tell whether an input may reuse what another module has quantized of its tensor.

    Args:
        bound: the target.
        cut: how it is cut.
    """
    if bound.plan.kind != "input" or cut.kind != "tensor":
        return False
    return original_class(type(bound.module)) in _READERS
