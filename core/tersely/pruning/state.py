"""Masks and statistics of a saved session, checked against the targets they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from tersely.calibration.statistic import Statistic, statistic_for
from tersely.document.recipe import Stage
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import MOVED, Grammar, Parts, Saved, need_shape
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionFileError
from tersely.instrument.masks.holding import HeldWeight, held_values
from tersely.json_value import Json
from tersely.pruning.mask_buffers import is_kept

MASK, SEEN, MISSING, DENSE, ORDER = "mask", "seen", "missing", "dense", "order"

GRAMMAR = Grammar(
    "",
    {
        MASK: False,
        DENSE: False,
        ORDER: False,
        SEEN: False,
        MISSING: False,
        "observed": True,
        "learned": True,
        MOVED: True,
        "value": False,
        "original": False,
    },
)
"""How pruning names its saved tensors.

Masks are bool, True = kept. Dense are the values of the masked elements, in flat order, of a target
that is masked in place. Orders are those of input channels, int64.
"""


def check_mask(bound: BoundTarget, kept: Tensor) -> None:
    """Refuse a saved mask that does not fit its target.

    Args:
        bound: the target.
        kept: bool, True = kept, the target's shape or one that broadcasts to it.

    Raises:
        SessionFileError: it has another dtype or shape.
    """
    shape = bound.plan.shape
    fits = shape is None or (
        kept.ndim == len(shape)
        and all(one in (1, length) for one, length in zip(kept.shape, shape, strict=True))
    )
    if kept.dtype != torch.bool or not fits:
        dtype = str(kept.dtype).removeprefix("torch.")
        raise SessionFileError(
            f"the saved mask of {bound.plan.name} is {dtype} of shape {list(kept.shape)}, "
            f"expected bool that fits the model's {list(shape or ())}",
            target=bound.plan.name,
        )


def check_dense(bound: BoundTarget, kept: Tensor, saved: Saved) -> None:
    """Refuse dense values that are not one for each masked element.

    Args:
        bound: the target.
        kept: its saved mask, checked.
        saved: the state it is part of.

    Raises:
        SessionFileError: there are more or fewer of them.
    """
    values = saved.one(DENSE, bound.plan.name)
    if values is not None:
        masked = (~kept).sum() * (bound.raw.numel() // max(kept.numel(), 1))
        need_shape(DENSE, bound, values, (int(masked),))


def spread_dense(holds: Mapping[BoundTarget, HeldWeight]) -> Parts:
    """Return the dense values of masked elements as tensors of their targets' shapes.

    Args:
        holds: what keeps them.
    """
    return {
        (DENSE, bound.plan.name): {"": held.spread(bound.plan.shape or ())}
        for bound, held in holds.items()
        if held.values is not None
    }


def gather_dense(saved: Saved) -> None:
    """Turn dense values of their targets' shapes into one for each masked element, in place.

    Args:
        saved: a state with what `spread_dense` returned, all of it cut.
    """
    for (kind, name), parts in saved.parts.items():
        kept = saved.one(MASK, name) if kind == DENSE else None
        if kept is not None:
            saved.parts[kind, name] = {"": held_values(kept, parts[""])}


def restore_dense(holds: Mapping[BoundTarget, HeldWeight], saved: Saved, journal: Journal) -> None:
    """Restore the saved dense values of what is masked in place.

    Args:
        holds: what keeps them.
        saved: a checked state.
        journal: notes what changes.
    """
    for bound, held in holds.items():
        values = saved.one(DENSE, bound.plan.name)
        if values is not None and held.values is not None:
            journal.note_attributes(held, "values")
            held.values = values.to(bound.raw)


def gather_masks(
    masks: Iterable[tuple[BoundTarget, Tensor]], holds: Mapping[BoundTarget, HeldWeight]
) -> Parts:
    """Return masks, and the dense values of what is masked in place, to be saved.

    Args:
        masks: targets with the buffers that mask them.
        holds: what keeps the dense values.
    """
    found: Parts = {}
    for bound, mask in masks:
        found[MASK, bound.plan.name] = {"": is_kept(bound, mask)}
    for bound, held in holds.items():
        if held.values is not None:
            found[DENSE, bound.plan.name] = {"": held.values.clone()}
    return found


def gather_orders(orders: Mapping[BoundTarget, Tensor]) -> Parts:
    """Return the orders of input channels, to be saved.

    Args:
        orders: target -> the order in which its granularity holds.
    """
    return {(ORDER, bound.plan.name): {"": order} for bound, order in orders.items()}


def gather_statistics(statistics: Mapping[BoundTarget, Statistic]) -> Parts:
    """Return the sums of what calibration saw, to be saved.

    Args:
        statistics: what it saw of inputs and outputs.
    """
    found: Parts = {}
    for bound, statistic in statistics.items():
        if statistic.total is not None:
            found[SEEN, bound.plan.name] = {"": statistic.total}
            if statistic.missing is not None:
                found[MISSING, bound.plan.name] = {"": statistic.missing}
    return found


def describe_statistics(statistics: Mapping[BoundTarget, Statistic]) -> dict[str, Json]:
    """Return what a saved session keeps of statistics besides their sums.

    Args:
        statistics: what calibration saw of inputs and outputs.
    """
    return {
        bound.plan.name: {"count": one.count, "sample_shape": list(one.sample_shape)}
        for bound, one in statistics.items()
        if one.total is not None
    }


def restored_statistics(
    bound_targets: Iterable[BoundTarget], stages: Sequence[Stage], saved: Saved
) -> dict[BoundTarget, Statistic]:
    """Return what calibration had seen when a session was saved.

    Args:
        bound_targets: all pruning targets.
        stages: the recipe's stages.
        saved: the state.
    """
    about = saved.data["seen"]
    return {
        bound: _rebuilt(
            bound,
            total,
            about[bound.plan.name],
            stages,
            missing=saved.one(MISSING, bound.plan.name),
        )
        for bound in bound_targets
        if (total := saved.one(SEEN, bound.plan.name)) is not None
    }


def _rebuilt(
    bound: BoundTarget,
    total: Tensor,
    about: Mapping[str, Json],
    stages: Sequence[Stage],
    *,
    missing: Tensor | None = None,
) -> Statistic:
    device = next(bound.module.parameters(), total).device
    statistic = statistic_for(bound, stages)
    statistic.total = total.to(device)
    statistic.missing = None if missing is None else missing.to(device)
    statistic.count = int(about["count"])
    statistic.sample_shape = tuple(int(length) for length in about["sample_shape"])
    return statistic
