"""The start of stages that quantize by plain steps: one look at each kind of target.

Attaching comes here with tens of thousands of targets of few kinds. What a kind needs is found for
one of its targets, and no target is bound before something is chosen for it.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.quantized_forward import RoundsAtRandom
from tersely.contracts.target_plan import TargetPlan
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.names import QUANTIZE
from tersely.instrument.scales.quantizing import Quantize
from tersely.instrument.scales.target_scales import Room
from tersely.instrument.transforms import SharedPut
from tersely.planning.targets.owners import find_tensor
from tersely.quantization.run import QuantizationRun
from tersely.quantization.scale_buffers import room_of

_Key: TypeAlias = tuple[int, str, str, str, int, tuple[int, ...] | None, int]
"""Identity of the setting, target, kind, module type, channel dimension, shape and blocks."""


@attrs.define(eq=False)
class _Kind:
    """Targets that get the same; mutable, because rooms are found when they are needed.

    Attributes:
        step: the plain step that quantizes each of them.
        is_activation: whether they are inputs or outputs.
        is_simulated: whether forward computes with quantized values.
        rooms: the buffers that each of them needs, by dtype and device.
    """

    step: Quantize
    is_activation: bool
    is_simulated: bool
    rooms: dict[tuple[torch.dtype, torch.device], Room] = attrs.field(factory=dict, init=False)


def start_plainly(run: QuantizationRun, model: nn.Module) -> bool:
    """Give the targets of a stage their buffers and steps, if all kinds allow plain ones.

    Args:
        run: the stage, whose period has begun.
        model: the session's model, whose dtype inputs and outputs have.

    Returns:
        Whether it was done. It is not where targets are tied, folded, or quantized in a way that
        depends on more than their kind; nothing has changed then.
    """
    if not _is_plain(run):
        return False
    kinds = _kinds_of(run)
    if kinds is None:
        return False
    activation = next((one for one in model.parameters() if one.is_floating_point()), None)
    putting = SharedPut(QUANTIZE)
    binding = run.binding
    for is_activation in (False, True):  # the order in which a module has its buffers
        rooms: dict[Room, list[nn.Module]] = {}
        for target, module, kind in zip(binding.plan.targets, binding.modules, kinds, strict=True):
            if kind is None or kind.is_activation is not is_activation:
                continue
            like = activation if is_activation else find_tensor(module, target.target)
            if like is not None and not like.is_meta:  # else they come with the values
                rooms.setdefault(_room(run, kind, target, like), []).append(module)
            if kind.is_simulated:
                putting.put(module, target.target, kind.step)
        for room, modules in rooms.items():
            room.make(modules)
    return True


def _is_plain(run: QuantizationRun) -> bool:
    """Tell whether the algorithm adds nothing to the plain steps of its targets."""
    plan = run.binding.plan
    settings = {id(one.setting): one for one in plan.targets if one.method == "quantization"}
    return (
        run.binding.owners.is_plain
        and not any(one.quantization.is_accumulated for one in settings.values())
        and not any(list(stage.folded) for stage in plan.recipe.stages)
        and run.follows_training() is None
        and run.simulating() is None
        and not (run.is_learning or run.is_equalizing or run.frozen)
        and not isinstance(run.algorithm, RoundsAtRandom)
    )


def _kinds_of(run: QuantizationRun) -> list[_Kind | None] | None:
    """Return the kind of each target of the plan, None for those of other stages."""
    kinds: dict[_Key, _Kind] = {}
    # No list of pairs: so many objects that live for a while make Python collect garbage among
    # all that the program has.
    found: list[_Kind | None] = []
    for target, module in zip(run.binding.plan.targets, run.binding.modules, strict=True):
        if target.stage != run.number:
            found.append(None)
            continue
        key = (
            id(target.setting),
            target.target,
            target.kind,
            target.module_type,
            target.channel_dim,
            target.shape,
            id(target.blocks),
        )
        kind = kinds.get(key)
        if kind is None:
            step = run.quantize_step(BoundTarget(target, module))
            is_activation = target.kind in ("input", "output")
            is_whole = step.cut.kind == "tensor"
            is_fixed = not is_activation and step.cut.fixed is not None
            if not (is_whole or is_fixed) or (is_activation and run.is_dynamic_as(step)):
                return None
            kind = kinds[key] = _Kind(step, is_activation, target.quantization.is_simulated)
        found.append(kind)
    return found


def _room(run: QuantizationRun, kind: _Kind, target: TargetPlan, like: Tensor) -> Room:
    key = (like.dtype, like.device)
    room = kind.rooms.get(key)
    if room is None:
        shape = kind.step.cut.kept_shape(target.shape, None)
        room = kind.rooms[key] = room_of(run, target.target, kind.step, shape, like)
    return room
