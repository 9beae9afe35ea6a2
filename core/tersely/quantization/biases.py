"""Biases that were corrected for what rounding a weight shifts, and their previous values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import torch
from torch import Tensor, nn

from tersely.engine.state.cutting import Cut, move_along
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import Parts, Saved
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.folding import Fold
from tersely.instrument.masks.holding import dense_values
from tersely.instrument.modules.classes import instruments_of
from tersely.quantization.scale_buffers import device_of

_KINDS = ("bias", "old_bias")
_CHANGE = "bias_change"


@attrs.frozen(eq=False)
class Corrected:
    """A bias that was corrected.

    Attributes:
        owner: the module that has it.
        before: the bias before it was corrected.
        change: what correcting has added to it, which the next correction replaces.
    """

    owner: nn.Module
    before: Tensor
    change: Tensor

    @property
    def bias(self) -> Tensor | None:
        """The bias as it is now, or None if its module has none any more."""
        return self.owner._parameters["bias"]

    def give_back(self) -> None:
        """Write the previous values, if there still is a bias."""
        _write(self.owner, self.before)


def bias_owner(weight: BoundTarget) -> nn.Module | None:
    """Return the module whose bias is added to what a weight computes, or None without one.

    It is the layer, or the batch norm that is folded into it.

    Args:
        weight: a target.
    """
    if weight.plan.target != "weight":
        return None
    norm = _norm_of(weight.module)
    owners = (weight.module,) if norm is None else (norm, weight.module)
    return next((one for one in owners if one._parameters.get("bias") is not None), None)


def _norm_of(layer: nn.Module) -> nn.Module | None:
    fold = instruments_of(layer).fold
    return fold.norm if isinstance(fold, Fold) else None


def correct_bias(
    corrected: dict[BoundTarget, Corrected],
    weight: BoundTarget,
    change: Tensor,
    journal: Journal,
) -> None:
    """Add to the bias that a weight's outputs get, in place of what was added before.

    Args:
        corrected: weight -> the bias that was corrected for it; gets this one.
        weight: a weight with such a bias.
        change: shape (outputs,), output units.
        journal: notes the previous values.
    """
    owner = bias_owner(weight)
    assert owner is not None  # the caller has checked
    fold = instruments_of(weight.module).fold
    if owner is weight.module and isinstance(fold, Fold) and fold.norm is not None:
        change = change / fold.factors().to(change)  # positive: a norm without a bias has no weight
    bias = owner._parameters["bias"]
    assert bias is not None
    journal.note_parameter(owner, "bias")
    known = corrected.get(weight)
    journal.on_undo(partial(_put_back, corrected, weight, known))
    before = dense_values(owner, "bias", bias) if known is None else known.before
    corrected[weight] = Corrected(owner, before, change)
    with torch.no_grad():
        bias.add_((change if known is None else change - known.change).to(bias.dtype))


def _put_back(
    corrected: dict[BoundTarget, Corrected], weight: BoundTarget, known: Corrected | None
) -> None:
    if known is None:
        del corrected[weight]
    else:
        corrected[weight] = known


def _write(owner: nn.Module, values: Tensor) -> None:
    bias = owner._parameters["bias"]
    if bias is not None:
        with torch.no_grad():
            bias.copy_(values)


def gather_biases(corrected: Mapping[BoundTarget, Corrected]) -> Parts:
    """Return corrected biases and their previous values, to be saved.

    Args:
        corrected: weight -> the bias that was corrected for it.
    """
    found: Parts = {}
    for bound, one in corrected.items():
        found["old_bias", bound.plan.name] = {"": one.before}
        found[_CHANGE, bound.plan.name] = {"": one.change}
        if one.bias is not None:
            found["bias", bound.plan.name] = {"": one.bias.detach()}
    return found


def cut_biases(
    corrected: Mapping[BoundTarget, Corrected],
    saved: Saved,
    found: Saved,
    cuts: Mapping[str, Cut],
    *,
    name_of: Callable[[nn.Module], str],
) -> None:
    """Cut what `gather_biases` returned.

    Args:
        corrected: weight -> the bias that was corrected for it.
        saved: the state before it was cut.
        found: the cut state, which gets the biases.
        cuts: parameter or buffer -> what stays of it.
        name_of: gives the name of a module of the model.
    """
    for bound, one in corrected.items():
        cut = cuts.get(f"{name_of(one.owner)}.bias".lstrip("."))
        for kind in (*_KINDS, _CHANGE):
            values = saved.one(kind, bound.plan.name)
            if values is not None:
                found.parts[kind, bound.plan.name] = {"": values if cut is None else cut(values)}
        if one.bias is not None:
            move_along(found, bound.plan.name, _KINDS, one.bias.detach())


def restore_bias(
    corrected: dict[BoundTarget, Corrected], bound: BoundTarget, saved: Saved, journal: Journal
) -> None:
    """Put the corrected bias of a weight's outputs back, if it was saved.

    Args:
        corrected: weight -> the bias that was corrected for it; gets this one.
        bound: a quantization target.
        saved: a checked state.
        journal: notes the previous values.
    """
    bias, old_bias = (saved.one(kind, bound.plan.name) for kind in _KINDS)
    owner = None if bias is None or old_bias is None else bias_owner(bound)
    if owner is not None and bias is not None and old_bias is not None:
        journal.note_parameter(owner, "bias")
        _write(owner, bias)
        change = saved.one(_CHANGE, bound.plan.name)
        change = bias - old_bias if change is None else change
        device = device_of(bound)
        corrected.setdefault(bound, Corrected(owner, old_bias.to(device), change.to(device)))
