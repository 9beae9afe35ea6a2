"""The factors of input channels: the steps that multiply a weight by them and divide its input."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tersely.engine.binding import BoundTarget
from tersely.instrument.input_scales import ScaleInput, ScaleWeight
from tersely.instrument.names import SCALE, UNSCALE, state_buffer
from tersely.instrument.transforms import put
from tersely.planning.addresses import parse_address


def input_of(bound_targets: Sequence[BoundTarget], module: nn.Module) -> str | None:
    """Return the quantized target that is a module's first input, as it is spelled, or None.

    Args:
        bound_targets: all quantization targets.
        module: the module.
    """
    for bound in bound_targets:
        if bound.module is module and bound.plan.kind == "input":
            address = parse_address(bound.plan.target)
            if address is not None and address.is_first:
                return bound.plan.target
    return None


def place_factors(bound_targets: Sequence[BoundTarget], bound: BoundTarget) -> None:
    """Put in the steps that multiply the input channels of a weight and take the factors back.

    They do nothing until there are factors, which `compress` finds or a checkpoint brings.

    Args:
        bound_targets: all quantization targets.
        bound: the weight.
    """
    plan = bound.plan
    # The other holders of a tied weight read the same values, and nothing divides their inputs.
    source = None if bound.others else input_of(bound_targets, bound.module)
    for module, attribute in bound.owners:
        buffer = state_buffer(attribute, "input_scale")
        put(module, attribute, (ScaleWeight(buffer, plan.input_dim),), place=SCALE)
        if source is None:
            back = ScaleWeight(buffer, plan.input_dim, True)
            put(module, attribute, (back,), place=UNSCALE)
        else:
            put(module, source, (ScaleInput(buffer, plan.channel_dim),), place=SCALE)
