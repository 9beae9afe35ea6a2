"""Scales and zero points in the buffers of every module that holds a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tersely.arithmetic.level_tables import padded
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import quantized_range
from tersely.contracts.quantized_forward import RoundsAtRandom
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.buffers import put_buffer
from tersely.instrument.names import state_buffer
from tersely.instrument.scales.quantizing import Quantize
from tersely.instrument.scales.target_scales import Room, put_in_force, take_out_of_force
from tersely.planning.targets.addresses import declared_channels
from tersely.quantization.run import QuantizationRun


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


def make_room(run: QuantizationRun, model: nn.Module) -> None:
    """Give modules the buffers of the scales that a stage will choose.

    Args:
        run: the stage.
        model: the session's model, whose dtype inputs and outputs have.
    """
    is_following = run.follows_training() is not None
    activation = next((one for one in model.parameters() if one.is_floating_point()), None)
    # A large model has few kinds of targets, which need the same room.
    rooms: dict[_Alike, Room] = {}
    for bound in (*run.parameters, *run.activations):
        plan = bound.plan
        like = activation if plan.kind in ("input", "output") else bound.raw
        if like is None or like.is_meta:
            continue  # they come with the values
        step = run.quantize_step(bound)
        channels = channels_of(bound) if step.cut.kind == "channel" else None
        for module, attribute in bound.owners:
            key = (id(step), attribute, plan.shape, channels, like.dtype, like.device)
            room = rooms.get(key)
            if room is None:
                shape = step.cut.kept_shape(plan.shape, channels)
                follows = is_following and run.is_simulated(bound)
                room = rooms[key] = room_of(run, attribute, step, shape, like, is_following=follows)
            room.make((module,))


def room_of(
    run: QuantizationRun,
    attribute: str,
    step: Quantize,
    shape: tuple[int, ...] | None,
    like: Tensor,
    *,
    is_following: bool = False,
) -> Room:
    """Return the buffers that a target needs.

    Args:
        run: its stage.
        attribute: its name in the module that gets them.
        step: the plain step that quantizes it.
        shape: the shape of its scale, or None while that is unknown.
        like: a tensor of its dtype, on its device.
        is_following: whether its range follows training.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return Room.of(
        attribute,
        torch.zeros((0,) if shape is None else shape, dtype=dtype, device=like.device),
        has_zero_point=step.grid.has_zero_point,
        is_following=is_following,
        is_random=isinstance(run.algorithm, RoundsAtRandom),
        level_count=step.grid.quant_max + 1 if step.grid.has_levels else 0,
    )


def has_known_shape(run: QuantizationRun, bound: BoundTarget) -> bool:
    """Tell whether it is known before the first batch how many scales a target has.

    Args:
        run: its stage.
        bound: the target.
    """
    cut = run.quantize_step(bound).cut
    channels = channels_of(bound) if cut.kind == "channel" else None
    return cut.kept_shape(bound.plan.shape, channels) is not None


_Alike: TypeAlias = tuple[int, str, tuple[int, ...] | None, int | None, torch.dtype, torch.device]
"""Identity of the step, attribute, shape, channels, and the tensor's dtype and device."""


def channels_of(bound: BoundTarget) -> int | None:
    """Return how many channels an input or output has, or None where only a batch shows it.

    Args:
        bound: the target.
    """
    if bound.plan.kind not in ("input", "output"):
        return None
    return declared_channels(bound.module, bound.plan.target)


def write_qparams(
    bound: BoundTarget,
    qparams: QParams,
    *,
    range_: tuple[Tensor, Tensor] | None = None,
    is_centred: bool = False,
) -> None:
    """Put scale and zero point in force.

    Args:
        bound: the target.
        qparams: the parameters, one value per block.
        range_: what training moves on from, low and high of the scale's shape; None for the
            whole range of the parameters.
        is_centred: whether it is known that all zero points are zero.
    """
    scale, zero_point = qparams.scale, qparams.zero_point
    write_buffer(bound, "scale", scale)
    # Most zero points are zero by their type, and adding none is faster than adding zeros.
    has_place = read_buffer(bound, "zero_point") is not None
    if has_place or (not is_centred and bool(zero_point.any())):
        precise = scale.dtype if qparams.has_float_zero_point else torch.float32
        write_buffer(bound, "zero_point", zero_point.to(precise))
    _write_levels(bound, qparams.levels)
    if read_buffer(bound, "low") is not None:
        for part, value in zip(("low", "high"), range_ or range_of(qparams), strict=True):
            write_buffer(bound, part, value.to(torch.float32).reshape(scale.shape))
    for module, attribute in bound.owners:
        put_in_force(module, attribute)


def _write_levels(bound: BoundTarget, levels: Tensor | None) -> None:
    if levels is not None:
        levels = padded(levels, level_count(bound))
    write_buffer(bound, "levels", levels)


def level_count(bound: BoundTarget) -> int:
    """Return how many levels a table of a target has at most.

    Args:
        bound: the target.
    """
    return quantized_range(bound.plan.quantization.quant_dtype).quant_max + 1


def range_of(qparams: QParams) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest value that the integers of each block represent.

    Args:
        qparams: scale and zero point.
    """
    scale = qparams.scale.float()
    if qparams.levels is not None:
        levels = qparams.levels.float()
        return levels[0] * scale, levels[-1] * scale
    ends = (qparams.quant_min, qparams.quant_max)
    low, high = ((end - qparams.zero_point.float()) * scale for end in ends)
    return low, high


def restore_scales(bound: BoundTarget, buffers: Mapping[str, Tensor]) -> None:
    """Put saved buffers back; what was not saved becomes as it was before there was a scale.

    Args:
        bound: the target.
        buffers: part -> tensor on the target's device.
    """
    for module, attribute in bound.owners:
        take_out_of_force(module, attribute)
    for part in ("input_scale", "size"):
        write_buffer(bound, part, buffers.get(part))
    for part, value in buffers.items():
        if part == "levels":
            continue
        is_whole = part == "zero_point" and not value.is_floating_point()
        write_buffer(bound, part, value.float() if is_whole else value)
    if "scale" in buffers:
        _write_levels(bound, buffers.get("levels"))
        for module, attribute in bound.owners:
            put_in_force(module, attribute)


def read_buffer(bound: BoundTarget, part: str) -> Tensor | None:
    """Return what a buffer of a target holds, or None.

    Args:
        bound: the target.
        part: what it is, one of `STATE_PARTS`.
    """
    module, attribute = bound.owners[0]
    return module._buffers.get(state_buffer(attribute, part))


def device_of(bound: BoundTarget) -> torch.device:
    """Return the device on which a target's scales are.

    Args:
        bound: the target.
    """
    if not bound.is_activation:
        return bound.raw.device
    for tensor in bound.module.parameters():
        return tensor.device
    return torch.device("cpu")
