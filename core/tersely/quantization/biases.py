"""Biases that were corrected for what rounding a weight shifts, and their previous values."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tersely.engine.binding import BoundTarget
from tersely.engine.cutting import Cut, move_along
from tersely.engine.journal import Journal
from tersely.engine.saver import Parts, Saved
from tersely.instrument.masks.holding import dense_values
from tersely.quantization.scale_buffers import device_of

_KINDS = ("bias", "old_bias")


def correct_bias(
    before: dict[BoundTarget, Tensor], weight: BoundTarget, change: Tensor, journal: Journal
) -> None:
    """Add to the bias of a weight's layer.

    Args:
        before: weight -> the bias of its layer before it was corrected; gets this one.
        weight: a weight whose module has a bias.
        change: shape (outputs,), output units.
        journal: notes the previous values.
    """
    bias = weight.module._parameters["bias"]
    assert bias is not None  # the caller has checked
    journal.note_parameter(weight.module, "bias")
    before.setdefault(weight, dense_values(weight.module, "bias", bias))
    with torch.no_grad():
        bias.add_(change.to(bias.dtype))


def write_bias(weight: BoundTarget, values: Tensor) -> None:
    """Give the bias of a weight's layer other values, if it still has one.

    Args:
        weight: the weight.
        values: the bias's shape.
    """
    bias = weight.module._parameters["bias"]
    if bias is not None:
        with torch.no_grad():
            bias.copy_(values)


def gather_biases(before: Mapping[BoundTarget, Tensor]) -> Parts:
    """Return corrected biases and their previous values, to be saved.

    Args:
        before: weight -> the bias of its layer before it was corrected.
    """
    found: Parts = {}
    for bound, values in before.items():
        bias = bound.module._parameters["bias"]
        found["old_bias", bound.plan.name] = {"": values}
        if bias is not None:
            found["bias", bound.plan.name] = {"": bias.detach()}
    return found


def cut_biases(
    before: Mapping[BoundTarget, Tensor], saved: Saved, found: Saved, cuts: Mapping[str, Cut]
) -> None:
    """Cut what `gather_biases` returned.

    Args:
        before: weight -> the bias of its layer before it was corrected.
        saved: the state before it was cut.
        found: the cut state, which gets the biases.
        cuts: parameter or buffer -> what stays of it.
    """
    for kind in _KINDS:
        for bound in before:
            cut = cuts.get(f"{bound.plan.module}.bias".lstrip("."))
            one = saved.one(kind, bound.plan.name)
            if one is not None:
                found.parts[kind, bound.plan.name] = {"": one if cut is None else cut(one)}
    for bound in before:
        bias = bound.module._parameters["bias"]
        if bias is not None:
            move_along(found, bound.plan.name, _KINDS, bias.detach())


def restore_bias(
    before: dict[BoundTarget, Tensor], bound: BoundTarget, saved: Saved, journal: Journal
) -> None:
    """Put the corrected bias of a weight's layer back, if it was saved.

    Args:
        before: weight -> the bias of its layer before it was corrected; gets this one.
        bound: a quantization target.
        saved: a checked state.
        journal: notes the previous values.
    """
    bias, old_bias = (saved.one(kind, bound.plan.name) for kind in _KINDS)
    if bias is not None and old_bias is not None:
        journal.note_parameter(bound.module, "bias")
        write_bias(bound, bias)
        before.setdefault(bound, old_bias.to(device_of(bound)))
