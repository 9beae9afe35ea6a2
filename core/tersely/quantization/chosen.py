"""Scales that were chosen for weights that are alike, put in force together."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.qparams import QParams
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.names import known_flag, state_buffer
from tersely.quantization.scale_buffers import write_qparams


@attrs.frozen(eq=False)
class Chosen:
    """What was chosen for weights that are alike.

    Attributes:
        bound_targets: the weights.
        qparams: scale and zero point of all, shape (weights, *the shape that each has).
        low: the lower end of the range that they were chosen for, the scale's shape.
        high: its upper end.
    """

    bound_targets: Sequence[BoundTarget]
    qparams: QParams
    low: Tensor
    high: Tensor


@torch.no_grad()
def write_together(chosen: Chosen) -> None:
    """Put scales and zero points of weights that are alike in force, written in one call.

    Args:
        chosen: what was chosen for them.
    """
    pairs = _in_place(chosen)
    if pairs is None:
        is_centred = not bool(chosen.qparams.zero_point.any())
        for position in range(len(chosen.bound_targets)):
            _write_one(chosen, position, is_centred=is_centred)
        return
    for buffers, values in pairs:
        torch._foreach_copy_(buffers, values.unbind())
    # What `put_in_force` does of one: the buffers that it writes are among the pairs.
    flag = known_flag(chosen.bound_targets[0].plan.target)
    for bound in chosen.bound_targets:
        bound.module.__dict__[flag] = True


def _in_place(chosen: Chosen) -> list[tuple[list[Tensor], Tensor]] | None:
    """Return the buffers that take what was chosen, with it, or None where not all of them fit."""
    if any(bound.others for bound in chosen.bound_targets):
        return None
    qparams, target = chosen.qparams, chosen.bound_targets[0].plan.target
    held = [bound.module._buffers for bound in chosen.bound_targets]
    levels = state_buffer(target, "levels")
    if any(levels in one for one in held):
        return None
    has_zero_points = bool(qparams.zero_point.any())
    found = []
    for part, values, dtype, is_required in (
        ("scale", qparams.scale, qparams.scale.dtype, True),
        ("zero_point", qparams.zero_point, torch.float32, has_zero_points),
        ("low", chosen.low, torch.float32, False),
        ("high", chosen.high, torch.float32, False),
        ("in_force", torch.ones(len(held), device=chosen.low.device), torch.float32, False),
    ):
        name = state_buffer(target, part)
        buffers = [one.get(name) for one in held]
        present = [one for one in buffers if one is not None]
        kinds = {(one.shape, one.dtype, one.device) for one in present}
        if not present and not is_required:
            continue
        if len(present) < len(held) or kinds != {(values.shape[1:], dtype, values.device)}:
            return None
        found.append((present, values))
    return found


def _write_one(chosen: Chosen, position: int, *, is_centred: bool) -> None:
    every = chosen.qparams
    one = every.evolve(scale=every.scale[position], zero_point=every.zero_point[position])
    range_ = (chosen.low[position], chosen.high[position])
    write_qparams(chosen.bound_targets[position], one, range_=range_, is_centred=is_centred)
