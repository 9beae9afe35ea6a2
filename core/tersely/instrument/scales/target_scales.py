"""The scales of a target: there from attach on, and in force once something is chosen.

A copy of a model that is made early has the same buffers as the model later, so averages can go
from one to the other. What each buffer holds, for a target of n blocks:

==============  ==========  =====================================================================
buffer          shape       before there is a scale, and afterwards
==============  ==========  =====================================================================
`scale`         (n ...)     0, then value units per integer step
`zero_point`    (n ...)     0, then whole numbers as floats, which are rounded when they are used
                            as an average may have left others, or the numbers of an algorithm
                            whose zero points are floats; only where it can be other than zero
`levels`        (values,)   0, then the table of levels, whose last one is repeated up to the
                            number of values that the type has; only where there may be a table
`calls`         ()          training forwards that rounded at random; only where an algorithm does
`low`, `high`   (n ...)     0, then the range that follows training; only where one does
`in_force`      ()          0, then 1
==============  ==========  =====================================================================

In an average `in_force` is the share of what was averaged that had a scale. The others added 0, so
what was averaged, divided by the share, is the average of the scales that were there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor, nn

from tersely.errors import SessionFileError
from tersely.instrument.names import full_name, known_flag, state_buffer
from tersely.instrument.zeros import place_zeros

START = ("start_low", "start_high")
"""Parts that hold the range from before a step; no checkpoint holds them."""

IN_FORCE = "in_force"

Scales: TypeAlias = "tuple[Tensor, Tensor | None, Tensor | None]"
"""Scale, zero point or None, and the share where compiled code cannot look at it, else None."""


@attrs.frozen(eq=False)
class Room:
    """The buffers of a target that has no scale yet, shared by all similar targets.

    Attributes:
        buffers: name and zeros of each; every module gets tensors of its own, made like these.
        transient: names of those that no checkpoint holds.
    """

    buffers: tuple[tuple[str, Tensor], ...]
    transient: tuple[str, ...]

    @classmethod
    def of(
        cls,
        target: str,
        empty: Tensor,
        *,
        has_zero_point: bool,
        is_following: bool,
        level_count: int = 0,
        is_random: bool = False,
    ) -> Room:
        """Return the room that a target needs.

        Args:
            target: the parameter's name or the address of the input or output.
            empty: zeros of the scale's shape, dtype and device; of shape (0,) while that is
                unknown.
            has_zero_point: whether the zero point can be other than zero.
            is_following: whether the range follows training.
            level_count: how many values the type has where there may be a table of levels, else 0.
            is_random: whether training rounds at random.
        """
        parts: tuple[str, ...] = ("zero_point",) if has_zero_point else ()
        if is_following:
            parts = (*parts, "low", "high", *START)
        single = empty.float()
        zeros = {"scale": empty, **dict.fromkeys(parts, single), IN_FORCE: single.new_zeros(())}
        if level_count:
            zeros["levels"] = empty.new_zeros(level_count)
        if is_random:
            zeros["calls"] = empty.new_zeros((), dtype=torch.int64)
        return cls(
            tuple((state_buffer(target, part), like) for part, like in zeros.items()),
            tuple(state_buffer(target, part) for part in START if is_following),
        )

    def make(self, modules: Sequence[nn.Module]) -> None:
        """Give modules these buffers.

        Args:
            modules: the modules.
        """
        for name, like in self.buffers:
            place_zeros(modules, name, like)
        if self.transient:
            for module in modules:
                module._non_persistent_buffers_set.update(self.transient)


def are_known(module: nn.Module, target: str) -> bool:
    """Tell whether a target has scales, as far as a compiled forward may look.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of the input or output.
    """
    if getattr(module, known_flag(target), False):
        return True
    if torch.compiler.is_compiling():
        return False
    share = _share(module, target)
    if not share:
        return False
    if share != 1:
        settle(module, target)
    setattr(module, known_flag(target), True)
    return True


def _share(module: nn.Module, target: str) -> float:
    """Return the share of averaged models that had scales: 1 in a model that is not an average."""
    buffers = module._buffers
    scale, share = (buffers.get(state_buffer(target, part)) for part in ("scale", IN_FORCE))
    if scale is None or (share is not None and share.is_meta):
        return 0.0
    return 1.0 if share is None else float(share)


def scales_of(module: nn.Module, target: str) -> Scales | None:
    """Return what quantizes a target, or None while nothing does.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of the input or output.
    """
    buffers = module._buffers
    scale = buffers.get(state_buffer(target, "scale"))
    if scale is None:
        return None
    zero_point = buffers.get(state_buffer(target, "zero_point"))
    if getattr(module, known_flag(target), False):
        return scale, zero_point, None
    if torch.compiler.is_compiling():
        return _compiled(buffers.get(state_buffer(target, IN_FORCE)), scale, zero_point)
    share = _share(module, target)
    if share == 1:
        setattr(module, known_flag(target), True)
        return scale, zero_point, None
    # A copy that averages continues to average, so it is not changed here.
    mean = None if zero_point is None or not share else zero_point / share
    return (scale / share, mean, None) if share else None


def levels_of(module: nn.Module, target: str) -> Tensor | None:
    """Return the table of levels of a target that has a scale, padded, or None.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of the input or output.
    """
    levels = module._buffers.get(state_buffer(target, "levels"))
    if levels is None or getattr(module, known_flag(target), False):
        return levels
    if torch.compiler.is_compiling():
        share = module._buffers.get(state_buffer(target, IN_FORCE))
        return levels if share is None else levels / torch.where(share > 0, share, 1)
    return levels / (_share(module, target) or 1)


def _compiled(share: Tensor | None, scale: Tensor, zero_point: Tensor | None) -> Scales | None:
    if share is None:
        return scale, zero_point, None
    if not scale.numel():
        return None
    part = torch.where(share > 0, share, 1)
    mean = None if zero_point is None else zero_point / part
    return torch.where(share > 0, scale / part, 1), mean, share


def put_in_force(module: nn.Module, target: str) -> None:
    """Let forward quantize with what the buffers of a target hold.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of the input or output.
    """
    share = module._buffers.get(state_buffer(target, IN_FORCE))
    if share is not None:
        share.fill_(1)
    module.__dict__[known_flag(target)] = True


def take_out_of_force(module: nn.Module, target: str) -> None:
    """Let a target be as it was before it had a scale.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of the input or output.
    """
    buffers = module._buffers
    share = buffers.get(state_buffer(target, IN_FORCE))
    for part in ("scale", "zero_point", "low", "high", "levels"):
        name = state_buffer(target, part)
        tensor = buffers.get(name)
        if share is None or tensor is None:
            buffers.pop(name, None)
        else:
            tensor.zero_()
    if share is not None:
        share.zero_()
    module.__dict__.pop(known_flag(target), None)


@torch.no_grad()
def settle(module: nn.Module, target: str) -> None:
    """Turn what an average left in the buffers of a target into scales.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of the input or output.

    Raises:
        SessionFileError: there is no average, because something is not finite or not positive, or
            a table has fewer than two levels.
    """
    buffers, share = module._buffers, _share(module, target)
    if share and share != 1:
        for part in ("scale", "low", "high", "zero_point", "levels"):
            tensor = buffers.get(state_buffer(target, part))
            if tensor is not None:
                tensor.div_(share)
        tensor = buffers.get(state_buffer(target, IN_FORCE))
        if tensor is not None:
            tensor.fill_(1)
    scale = buffers.get(state_buffer(target, "scale"))
    if share and scale is not None and not bool((scale.isfinite() & (scale > 0)).all()):
        raise SessionFileError(
            f"{full_name(module, target)}: its scale is {float(scale.flatten()[0]):g}, and a scale "
            "is finite and above 0; average scales with weights that are positive and sum to 1",
            target=full_name(module, target),
        )
    levels = buffers.get(state_buffer(target, "levels"))
    if share and levels is not None and not _is_table(levels):
        raise SessionFileError(
            f"{full_name(module, target)}: its table of levels is {levels.tolist()}, but a table "
            "has two or more finite values in ascending order; average models of which all have "
            "tables of the same type",
            target=full_name(module, target),
        )


def _is_table(levels: Tensor) -> bool:
    steps = levels.diff()
    is_rising = bool((steps >= 0).all()) and bool((steps > 0).any())
    return levels.ndim == 1 and is_rising and bool(levels.isfinite().all())


@torch.no_grad()
def range_from_scale(module: nn.Module, target: str, quant_min: int, quant_max: int) -> None:
    """Let the range that follows training be what a scale can express.

    Args:
        module: an instrumented module.
        target: the parameter's name or the address of the input or output.
        quant_min: the smallest integer.
        quant_max: the largest integer.
    """
    buffers = module._buffers
    scale = buffers.get(state_buffer(target, "scale"))
    zero_point = buffers.get(state_buffer(target, "zero_point"))
    levels = levels_of(module, target)
    for part, end, place in (("low", quant_min, 0), ("high", quant_max, -1)):
        name = state_buffer(target, part)
        if buffers.get(name) is None or scale is None:
            continue
        if levels is not None:
            steps = levels[place]
        else:
            steps = end - (torch.zeros_like(scale) if zero_point is None else zero_point)
        buffers[name] = (steps * scale).to(torch.float32)
