"""Masks that the user sets and freezes: checked against the targets they are for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from tersely.contracts.target_plan import TargetPlan
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.by_target import each_by_target, find_bound_target, find_named
from tersely.errors import SessionError
from tersely.pruning.mask_buffers import mask_of

_GROUP = "dependency_group_id"

SampleShape = Callable[[BoundTarget], "tuple[int, ...] | None"]


def checked_masks(
    masks: Mapping[str, Mapping[str, Tensor]],
    bound_targets: Sequence[BoundTarget],
    sample_shape: SampleShape,
) -> dict[BoundTarget, Tensor]:
    """Return the user's masks by target.

    Args:
        masks: module -> target -> bool, True = kept, the target's shape or one that broadcasts
            to it; for an input or output the shape of one sample or a vector over channels.
        bound_targets: the session's targets.
        sample_shape: the shape of one sample of an input or output, or None while unknown.

    Raises:
        SessionError: there is no such target, it follows another, or the mask does not fit.
    """
    by_name = {(bound.plan.module, bound.plan.target): bound for bound in bound_targets}
    found = {}
    for module, target, mask in each_by_target(masks, "set_masks"):
        bound = find_bound_target(module, target, by_name)
        found[bound] = _checked(bound, mask, sample_shape(bound))
    return found


def named_targets(
    targets: Iterable[str] | None, bound_targets: Sequence[BoundTarget]
) -> list[BoundTarget]:
    """Return the targets that full names mean.

    Args:
        targets: full names such as ``"layer1.weight"``, or None for all that decide themselves.
        bound_targets: the session's targets.

    Raises:
        SessionError: there is no such target, or it follows another.
    """
    if targets is None:
        return [bound for bound in bound_targets if not _is_aligned(bound)]
    if isinstance(targets, str):
        raise SessionError(f"found the name {targets!r}, expected a list of names: [{targets!r}]")
    by_name = {(bound.plan.module, bound.plan.target): bound for bound in bound_targets}
    found = []
    for name in targets:
        bound = find_named(name, by_name)
        if _is_aligned(bound):
            raise SessionError(
                f"{name} follows another target; freeze or unfreeze that one", **bound.plan.place
            )
        found.append(bound)
    return found


def need_masks_to_freeze(chosen: Iterable[BoundTarget]) -> None:
    """Refuse to freeze what has no mask.

    Args:
        chosen: the targets to freeze.

    Raises:
        SessionError: names the first target without a mask.
    """
    for bound in chosen:
        if mask_of(bound) is None:
            raise SessionError(
                f"{bound.plan.name} has no mask to freeze; call session.compress() first, or give "
                "it one with session.set_masks(masks, freeze=True)",
                **bound.plan.place,
            )


def check_groups(frozen: Collection[BoundTarget], bound_targets: Sequence[BoundTarget]) -> None:
    """Refuse to freeze a part of a dependency group, whose members share one decision.

    Args:
        frozen: all targets that would be frozen.
        bound_targets: the session's targets.

    Raises:
        SessionError: names a frozen and a free member of a group.
    """
    first: dict[tuple[int, object], BoundTarget] = {}
    for bound in bound_targets:
        group = bound.plan.pruning.dependency_group_id
        if group is None:
            continue
        other = first.setdefault((bound.plan.stage, group), bound)
        if (bound in frozen) != (other in frozen):
            names = (bound, other) if bound in frozen else (other, bound)
            inside, outside = (one.plan.name for one in names)
            raise SessionError(
                f"{inside} would be frozen without {outside}, which shares {_GROUP} {group!r} with "
                "it: they have one decision, so freeze or unfreeze the whole group",
                **bound.plan.place,
            )


def _is_aligned(bound: BoundTarget) -> bool:
    return bound.plan.align is not None


def _checked(bound: BoundTarget, mask: Tensor, sample: tuple[int, ...] | None) -> Tensor:
    name = bound.plan.name
    if _is_aligned(bound):
        raise SessionError(
            f"{name} follows another target; set the mask of that one", **bound.plan.place
        )
    found = getattr(mask, "dtype", type(mask).__name__)
    if found != torch.bool:
        raise SessionError(
            f"{name}: a mask is a bool tensor, True = kept; found {found}", **bound.plan.place
        )
    shape = bound.plan.shape
    if shape is None:
        return _checked_sample(bound, mask, sample)
    _need_fit(bound.plan, mask, shape, exact=shape)
    padded = mask.reshape((1,) * (len(shape) - mask.ndim) + tuple(mask.shape))
    return padded.detach().clone()


def _checked_sample(bound: BoundTarget, mask: Tensor, sample: tuple[int, ...] | None) -> Tensor:
    # Before calibration only the model's forward knows the shape, and raises if it is wrong.
    if sample is not None:
        shape = sample
        if mask.ndim == 1 and bound.plan.channel_dim == 1:
            shape = sample[:1]
        _need_fit(bound.plan, mask, shape, exact=sample)
    return mask.detach().clone()


def _need_fit(
    plan: TargetPlan, mask: Tensor, shape: tuple[int, ...], *, exact: tuple[int, ...]
) -> None:
    lengths = zip(reversed(mask.shape), reversed(shape), strict=False)
    if mask.ndim > len(shape) or any(one not in (1, length) for one, length in lengths):
        raise SessionError(
            f"{plan.name}: the mask has shape {list(mask.shape)}, expected {list(exact)} or a "
            "shape that broadcasts to it",
            **plan.place,
        )
