"""Biases in units of their accumulator: their step, and weight scales with which they fit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tersely.arithmetic.blocks import reduce_blocks
from tersely.contracts.settings import QuantizationSetting, Setting
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import CompressionWarning
from tersely.instrument.names import learned_buffer, state_buffer
from tersely.instrument.scales.in_force import LeastScale, QuantizeBias, qparams_of
from tersely.quantization.factors.input_factors import input_of
from tersely.quantization.ranges import values_of
from tersely.quantization.targets import grid_of

_ONE_BIT = 2.0
_SHOWN = 10


def bias_step(bound: BoundTarget, bound_targets: Sequence[BoundTarget]) -> QuantizeBias:
    """Return what quantizes a bias in units of its accumulator.

    Args:
        bound: the bias.
        bound_targets: all quantization targets, among which its module's first input is.
    """
    source = input_of(bound_targets, bound.module)
    return QuantizeBias(bound.plan.target, source or "", "weight", grid_of(bound.plan))


def least_scales(bound_targets: Sequence[BoundTarget]) -> dict[nn.Module, LeastScale]:
    """Return what finds the smallest scales of weights with which the biases of their layers fit.

    Args:
        bound_targets: all quantization targets.
    """
    settings = {id(setting := one.plan.setting): setting for one in bound_targets}
    derived = {key for key, one in settings.items() if _is_accumulated(one)}
    return {
        one.module: LeastScale(bias_step(one, bound_targets))
        for one in (bound_targets if derived else ())
        if id(one.plan.setting) in derived
    }


def fit_accumulators(bound_targets: Sequence[BoundTarget], *, has_warning: bool) -> None:
    """Raise the scales of weights to the smallest with which the biases of their layers fit.

    Args:
        bound_targets: all quantization targets of a session, with their scales in force.
        has_warning: whether a warning names weights that lose more than one bit.
    """
    found_by = least_scales(bound_targets)
    if not found_by:
        return
    weights = {
        module: one for one in bound_targets for module, name in one.owners if name == "weight"
    }
    costs = []
    for module, find in found_by.items():
        weight, found = weights.get(module), qparams_of(module, "weight")
        if weight is None or found is None:
            continue
        least = find(module, found.scale.detach())
        if least is None:
            continue
        if has_warning:
            cost = _cost(weight, found.scale.detach(), least)
            costs.extend([f"{weight.plan.name} ({cost})"] if cost else [])
        _raise(weight, least)
    if costs:
        more = f" and {len(costs) - _SHOWN} more" if len(costs) > _SHOWN else ""
        warnings.warn(
            "int32 biases fit only with weight scales more than twice as large, which costs more "
            f"than one bit: {', '.join(costs[:_SHOWN])}{more}; leave these biases out of "
            "target_names, so that they stay floats, or fold the batch norm after them",
            CompressionWarning,
            stacklevel=3,
        )


def _is_accumulated(setting: Setting) -> bool:
    return isinstance(setting, QuantizationSetting) and setting.is_accumulated


def _cost(weight: BoundTarget, scale: Tensor, least: Tensor) -> str:
    values = values_of(weight)
    blocks = weight.plan.blocks
    if blocks is None or values.numel() == 0:
        return ""
    is_filled = reduce_blocks(values.abs(), blocks.size, torch.amax).reshape(scale.shape) > 0
    factors = torch.where(is_filled, least / scale, 0.0)
    count = int((factors > _ONE_BIT).sum())
    if not count:
        return ""
    return f"{count} of {factors.numel()} scales, up to {float(factors.max()):.3g} times"


@torch.no_grad()
def _raise(weight: BoundTarget, least: Tensor) -> None:
    for module, attribute in weight.owners:
        for name in (state_buffer(attribute, "scale"), learned_buffer(attribute, "scale")):
            scale = module._buffers.get(name)
            if scale is not None:
                scale.copy_(torch.maximum(scale, least.reshape(scale.shape)))
