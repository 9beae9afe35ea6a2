"""Scales, zero points and what is learned: written to the buffers of every holder of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.contracts.quantizer import LearnsScales
from tersely.engine.binding import BoundTarget
from tersely.engine.buffers import put_buffer
from tersely.errors import PluginError, SessionError
from tersely.instrument.input_scales import ScaleInput, ScaleWeight
from tersely.instrument.moving_range import end_step
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


def write_given(run: QuantizationRun, bound: BoundTarget, qparams: QParams) -> None:
    """Put scale and zero point in force that the user gave, in place where there are some.

    Args:
        run: the stage.
        bound: the target.
        qparams: the parameters, in the shape in which they are kept.
    """
    if run.follows_training() is not None:
        for part, end in zip(("low", "high"), range_of(qparams), strict=True):
            write_buffer(bound, part, end)
        for module, attribute in bound.owners:
            end_step(module, attribute)
    write_qparams(bound, qparams)
    if run.quantize_step(bound).cut.size is not None and qparams.block_size is not None:
        write_buffer(bound, "size", torch.tensor(qparams.block_size))


def range_of(qparams: QParams) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest value that the integers of each block stand for.

    Args:
        qparams: scale and zero point.
    """
    ends = (qparams.quant_min, qparams.quant_max)
    low, high = ((end - qparams.zero_point.float()) * qparams.scale.float() for end in ends)
    return low, high


def learn_given(run: QuantizationRun, bound: BoundTarget) -> None:
    """Let an algorithm learn the scale of a target, from the one that the user gave.

    Args:
        run: the stage, whose algorithm learns.
        bound: a target whose given scale is in its buffers.

    Raises:
        SessionError: what the algorithm learns does not stand for scales and zero points.
    """
    learner, qparams = run.algorithm, run.quantize_step(bound).qparams(bound.module)
    assert isinstance(learner, LearnsScales)  # the caller has asked
    assert qparams is not None  # it was given
    learned = run.learned(bound)
    if not learned:
        place_learned(run, bound, _shown(run, bound, qparams))
        learned = run.learned(bound)
    given = {"scale": qparams.scale, "zero_point": qparams.zero_point}
    with torch.no_grad():
        for name, leaf in learned.items():
            if name in given:
                leaf.copy_(given[name].reshape(leaf.shape))
    meaning = learner.meaning(qparams, learned)
    if not (
        torch.allclose(meaning.scale, qparams.scale.to(meaning.scale))
        and torch.equal(meaning.zero_point.double(), qparams.zero_point.double())
    ):
        raise SessionError(
            f"{bound.plan.algorithm} learns {', '.join(learned)} of {bound.plan.name}, which do "
            f"not stand for a scale and a zero point that are given; give them with freeze=True, "
            f"or let the algorithm choose them",
            **bound.plan.place,
        )


def _shown(run: QuantizationRun, bound: BoundTarget, qparams: QParams) -> Seen | None:
    """Return what calibration would have seen of an input or output with this range."""
    if not bound.is_activation:
        return None
    cut, observer = run.quantize_step(bound).cut, run.observer(bound)
    ends = torch.stack(range_of(qparams))
    layouts: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "tensor": (ends.reshape(-1), (-1,)),
        "channel": (ends.reshape(len(ends), -1), (-1, 1)),
    }
    # Of blocks each is shown by one value: the first of all dimensions holds both ends.
    values, size = layouts.get(cut.kind, (ends, (-1, *(1,) * qparams.scale.ndim)))
    blocks = read_buffer(bound, "size")
    found = Seen(bound, cut, observer, dict(observer.observe(values, size)))
    found.blocks = () if blocks is None else tuple(blocks.tolist())
    return found


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
