"""Scales, zero points and what is learned: written to the buffers of every holder of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.contracts.quantizer import LearnsScales
from tersely.engine.binding import BoundTarget
from tersely.engine.buffers import put_buffer
from tersely.errors import PluginError
from tersely.instrument.input_scales import ScaleInput, ScaleWeight
from tersely.instrument.names import QUANTIZE, SCALE, UNSCALE, learned_buffer, state_buffer
from tersely.instrument.quantizing import Learned
from tersely.instrument.transforms import put
from tersely.planning.addresses import parse_address
from tersely.quantization.ranges import Seen, values_of
from tersely.quantization.run import QuantizationRun
from tersely.quantization.targets import target_of


def write_buffer(bound: BoundTarget, part: str, value: Tensor | None) -> None:
    """Put a tensor into the buffer of every holder of a target, in place where one fits.

    Args:
        bound: the target.
        part: what it is, one of `STATE_PARTS`.
        value: the tensor, or None to remove it.
    """
    holders = [(module, state_buffer(attribute, part)) for module, attribute in bound.owners]
    if value is None:
        for module, name in holders:
            module._buffers.pop(name, None)
    else:
        put_buffer(holders, value, dtype=value.dtype, make=value.detach().clone)


def write_qparams(bound: BoundTarget, qparams: QParams) -> None:
    """Put scale and zero point in force.

    Args:
        bound: the target.
        qparams: the parameters, one value per block.
    """
    write_buffer(bound, "scale", qparams.scale)
    # Most zero points are zero, and adding none is faster than adding zeros.
    is_zero = not bool(qparams.zero_point.any())
    write_buffer(bound, "zero_point", None if is_zero else qparams.zero_point.to(torch.int32))


def read_buffer(bound: BoundTarget, part: str) -> Tensor | None:
    """Return what a buffer of a target holds, or None.

    Args:
        bound: the target.
        part: what it is, one of `STATE_PARTS`.
    """
    module, attribute = bound.owners[0]
    return module._buffers.get(state_buffer(attribute, part))


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


def place_learned(run: QuantizationRun, bound: BoundTarget, seen: Seen | None) -> list[Tensor]:
    """Let an algorithm learn the scale of a target, and return the new leaves.

    Args:
        run: the stage.
        bound: a target whose scale is in force.
        seen: what calibration saw of it, for an input or output.

    Raises:
        PluginError: the algorithm returned something else than float tensors.
    """
    learner = run.algorithm
    if not isinstance(learner, LearnsScales) or not run.is_simulated(bound):
        return []
    plain = run.quantize_step(bound)
    start = plain.qparams(bound.module)
    if start is None:
        return []
    tensor = None if bound.is_activation else values_of(bound)
    statistics = dict(seen.statistics) if seen is not None else {}
    if tensor is not None and tensor.numel():
        statistics = dict(run.observer(bound).observe(tensor, plain.cut.size_of(tensor)))
    size = seen.blocks if seen is not None else None
    target = target_of(bound, plain.grid, tensor=tensor, size=size, statistics=statistics)
    values = learner.start(start, target)
    for name, value in values.items():
        found: object = value
        if not (isinstance(found, Tensor) and found.is_floating_point()):
            raise PluginError(
                f"{bound.plan.algorithm} starts to learn {name!r} of {bound.plan.name} with "
                f"{type(value).__name__}; expected a float tensor",
                plugin=bound.plan.algorithm,
                target=bound.plan.name,
            )
    return place_leaves(run, bound, values, seen=seen)


def place_leaves(
    run: QuantizationRun, bound: BoundTarget, values: Mapping[str, Tensor], *, seen: Seen | None
) -> list[Tensor]:
    """Put values that are learned into the buffers of every holder of a target, and use them.

    A buffer that requires a gradient is a leaf like a parameter, but it is not in
    ``model.parameters()``, so the user's optimizer never sees it.

    Args:
        run: the stage.
        bound: the target.
        values: what is learned, by name.
        seen: what calibration saw of it, for an input or output.

    Returns:
        The leaves.
    """
    learner = run.algorithm
    assert isinstance(learner, LearnsScales)  # the caller has asked
    plain = run.quantize_step(bound)
    device = bound.module._buffers[state_buffer(bound.plan.target, "scale")]
    assert device is not None  # a learned target has started from a scale
    leaves = {
        name: value.detach().to(device.device, copy=True).requires_grad_()
        for name, value in sorted(values.items())
    }
    size = seen.blocks if seen is not None else None
    bare = target_of(bound, plain.grid, size=size)
    for module, attribute in bound.owners:
        for name, leaf in leaves.items():
            module._buffers[learned_buffer(attribute, name)] = leaf
        step = Learned(learner, bare, run.quantize_step(bound, attribute), tuple(leaves))
        put(module, attribute, (step,), place=QUANTIZE)
    return list(leaves.values())
