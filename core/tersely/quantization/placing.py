"""Scales, zero points and what is learned: written to the buffers of every holder of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.contracts.quantizer import LearnsScales
from tersely.engine.binding import Handle
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


def write_buffer(handle: Handle, part: str, value: Tensor | None) -> None:
    """Put a tensor into the buffer of every holder of a target, in place where one fits.

    Args:
        handle: the target.
        part: what it is, one of `STATE_PARTS`.
        value: the tensor, or None to remove it.
    """
    holders = [(module, state_buffer(attribute, part)) for module, attribute in handle.owners]
    if value is None:
        for module, name in holders:
            module._buffers.pop(name, None)
    else:
        put_buffer(holders, value, dtype=value.dtype, make=value.detach().clone)


def write_qparams(handle: Handle, qparams: QParams) -> None:
    """Put scale and zero point in force.

    Args:
        handle: the target.
        qparams: the parameters, one value per block.
    """
    write_buffer(handle, "scale", qparams.scale)
    # Most zero points are zero, and adding none is faster than adding zeros.
    is_zero = not bool(qparams.zero_point.any())
    write_buffer(handle, "zero_point", None if is_zero else qparams.zero_point.to(torch.int32))


def read_buffer(handle: Handle, part: str) -> Tensor | None:
    """Return what a buffer of a target holds, or None.

    Args:
        handle: the target.
        part: what it is, one of `STATE_PARTS`.
    """
    module, attribute = handle.owners[0]
    return module._buffers.get(state_buffer(attribute, part))


def input_of(handles: Sequence[Handle], module: nn.Module) -> str | None:
    """Return the quantized target that is a module's first input, as it is spelled, or None.

    Args:
        handles: all quantization targets.
        module: the module.
    """
    for handle in handles:
        if handle.module is module and handle.plan.kind == "input":
            address = parse_address(handle.plan.target)
            if address is not None and address.key in (None, 0):
                return handle.plan.target
    return None


def place_factors(handles: Sequence[Handle], handle: Handle) -> None:
    """Put in the steps that multiply the input channels of a weight and take the factors back.

    They do nothing until there are factors, which `compress` finds or a checkpoint brings.

    Args:
        handles: all quantization targets.
        handle: the weight.
    """
    plan = handle.plan
    # The other holders of a tied weight read the same values, and nothing divides their inputs.
    source = None if handle.others else input_of(handles, handle.module)
    for module, attribute in handle.owners:
        buffer = state_buffer(attribute, "input_scale")
        put(module, attribute, (ScaleWeight(buffer, plan.input_dim),), place=SCALE)
        if source is None:
            back = ScaleWeight(buffer, plan.input_dim, True)
            put(module, attribute, (back,), place=UNSCALE)
        else:
            put(module, source, (ScaleInput(buffer, plan.channel_dim),), place=SCALE)


def place_learned(run: QuantizationRun, handle: Handle, seen: Seen | None) -> list[Tensor]:
    """Let an algorithm learn the scale of a target, and return the new leaves.

    Args:
        run: the stage.
        handle: a target whose scale is in force.
        seen: what calibration saw of it, for an input or output.

    Raises:
        PluginError: the algorithm returned something else than float tensors.
    """
    learner = run.algorithm
    if not isinstance(learner, LearnsScales) or not run.is_simulated(handle):
        return []
    plain = run.quantize_step(handle)
    start = plain.qparams(handle.module)
    if start is None:
        return []
    tensor = None if handle.is_activation else values_of(handle)
    statistics = dict(seen.statistics) if seen is not None else {}
    if tensor is not None and tensor.numel():
        statistics = dict(run.observer(handle).observe(tensor, plain.cut.size_of(tensor)))
    size = seen.blocks if seen is not None else None
    target = target_of(handle, plain.grid, tensor=tensor, size=size, statistics=statistics)
    values = learner.start(start, target)
    for name, value in values.items():
        found: object = value
        if not (isinstance(found, Tensor) and found.is_floating_point()):
            raise PluginError(
                f"{handle.plan.algorithm} starts to learn {name!r} of {handle.plan.name} with "
                f"{type(value).__name__}; expected a float tensor",
                plugin=handle.plan.algorithm,
                target=handle.plan.name,
            )
    return place_leaves(run, handle, values, seen=seen)


def place_leaves(
    run: QuantizationRun, handle: Handle, values: Mapping[str, Tensor], *, seen: Seen | None
) -> list[Tensor]:
    """Put values that are learned into the buffers of every holder of a target, and use them.

    A buffer that requires a gradient is a leaf like a parameter, but it is not in
    ``model.parameters()``, so the user's optimizer never sees it.

    Args:
        run: the stage.
        handle: the target.
        values: what is learned, by name.
        seen: what calibration saw of it, for an input or output.

    Returns:
        The leaves.
    """
    learner = run.algorithm
    assert isinstance(learner, LearnsScales)  # the caller has asked
    plain = run.quantize_step(handle)
    device = handle.module._buffers[state_buffer(handle.plan.target, "scale")]
    assert device is not None  # a learned target has started from a scale
    leaves = {
        name: value.detach().to(device.device, copy=True).requires_grad_()
        for name, value in sorted(values.items())
    }
    size = seen.blocks if seen is not None else None
    bare = target_of(handle, plain.grid, size=size)
    for module, attribute in handle.owners:
        for name, leaf in leaves.items():
            module._buffers[learned_buffer(attribute, name)] = leaf
        step = Learned(learner, bare, run.quantize_step(handle, attribute), tuple(leaves))
        put(module, attribute, (step,), place=QUANTIZE)
    return list(leaves.values())
