"""The masks of targets that follow others, placed after the masks they follow (rule B7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks, resolve_size
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.stacks import FEW, SMALL
from tersely.errors import PlanError, SessionError
from tersely.instrument.masks.mask_transforms import spatial_dims
from tersely.masking.align import align_kept, place_kept
from tersely.planning.stages.draft import claimed_address
from tersely.planning.targets.addresses import INPUT, OUTPUT, parse_address
from tersely.planning.targets.signature import signature_of
from tersely.planning.targets.spelling import implementation
from tersely.pruning.mask_buffers import compact, is_kept, mask_of


def with_followers(
    bound_targets: Sequence[BoundTarget],
    decided: Mapping[BoundTarget, Tensor],
    *,
    is_partial: bool = False,
) -> dict[BoundTarget, Tensor]:
    """Return new masks together with the masks of aligned targets, each after its source.

    Args:
        bound_targets: all pruning targets of the session.
        decided: for each ranked target bool, True = kept; masks already in force replace
            the others.
        is_partial: whether targets whose source has no mask yet are left for later.

    Raises:
        PlanError: a mask does not fit the target that follows it.
        SessionError: a source has no mask, and nothing may be left for later.
    """
    decided = dict(decided)
    waiting = [bound for bound in bound_targets if bound.plan.align is not None]
    if not waiting:
        return decided
    by_name = _names_of(bound_targets)
    decided.update(_followers_together(waiting, by_name, decided))
    for bound in waiting:
        if not (is_partial and _is_early(bound, by_name, decided)):
            _follow(bound, by_name, decided)
    return decided


def of_these_alone(
    bound_targets: Sequence[BoundTarget], decided: Mapping[BoundTarget, Tensor]
) -> dict[BoundTarget, Tensor]:
    """Return masks together with those of the targets that follow them, and no others.

    Args:
        bound_targets: all pruning targets of the session.
        decided: for each ranked target bool, True = kept.

    Raises:
        PlanError: a mask does not fit the target that follows it.
    """
    found = dict(decided)
    by_name = _names_of(bound_targets)
    for bound in bound_targets:
        root = bound
        while root.plan.align is not None:
            root = _source(root, by_name)
        if root in decided:
            _follow(bound, by_name, found)
    return found


def _names_of(bound_targets: Sequence[BoundTarget]) -> dict[tuple[str, str], BoundTarget]:
    by_name: dict[tuple[str, str], BoundTarget] = {}
    for bound in bound_targets:
        names = [(bound.plan.module, bound.plan.target)]
        for shared in bound.plan.shared_with:
            module, _, attribute = shared.rpartition(".")
            names.append((module, attribute))
        for module, target in names:
            for spelling in _spellings(bound, target):
                by_name.setdefault((module, spelling), bound)
    return by_name


def _spellings(bound: BoundTarget, target: str) -> Iterator[str]:
    yield target
    written = parse_address(target)
    if written is None:
        return
    signature = signature_of(bound.module)
    address = claimed_address(written, signature)
    if address.side == "input" and isinstance(address.key, int):
        names = (address.key, *signature.positional[address.key :][:1])
        yield from (f"{INPUT}{name}{address.nested}" for name in names)
    if address.is_first:
        yield INPUT if address.side == "input" else OUTPUT
        yield (INPUT if address.side == "input" else OUTPUT) + "0"


def _source(bound: BoundTarget, by_name: Mapping[tuple[str, str], BoundTarget]) -> BoundTarget:
    align = bound.plan.align
    assert align is not None  # the caller has checked
    return by_name[align.module_for(bound.plan.module), align.target_name]


def _is_early(
    bound: BoundTarget,
    by_name: Mapping[tuple[str, str], BoundTarget],
    decided: Mapping[BoundTarget, Tensor],
) -> bool:
    while bound.plan.align is not None:
        bound = _source(bound, by_name)
    return bound not in decided and mask_of(bound) is None


def _follow(
    bound: BoundTarget,
    by_name: Mapping[tuple[str, str], BoundTarget],
    decided: dict[BoundTarget, Tensor],
) -> Tensor:
    if bound in decided:
        return decided[bound]
    align = bound.plan.align
    if align is None:
        mask = mask_of(bound)
        if mask is None:
            raise SessionError(
                f"{bound.plan.name} has no mask yet; call session.compress()", **bound.plan.place
            )
        return is_kept(bound, mask)
    source = _source(bound, by_name)
    kept = _follow(source, by_name, decided)
    # A new tensor: a source's decision may be 0 and 1 in the very memory of its mask.
    reduced = align_kept(kept != 0, align.dims, name=bound.plan.name)
    decided[bound] = _place(bound, source, reduced)
    return decided[bound]


def _followers_together(
    waiting: Sequence[BoundTarget],
    by_name: Mapping[tuple[str, str], BoundTarget],
    decided: Mapping[BoundTarget, Tensor],
) -> dict[BoundTarget, Tensor]:
    """Return the masks of small parameters that follow the same way; a call costs more than a mask.

    Each row of a stack is the mask of one source. What has to be looked at one at a time is left
    out: inputs and outputs, numbered blocks, and what follows a follower.
    """
    alike: dict[object, list[tuple[BoundTarget, BoundTarget]]] = {}
    for bound in waiting:
        source, blocks = _source(bound, by_name), bound.plan.blocks
        kept = decided.get(source)
        if kept is None or bound in decided or bound.is_activation or kept.numel() > SMALL:
            continue
        if blocks is not None and blocks.index is not None:
            continue
        # Equal targets share their setting and blocks, and the setting says which dimensions.
        kind = (id(bound.plan.setting), bound.plan.align, id(blocks), bound.plan.shape)
        key = (kind, kept.shape, kept.dtype, kept.device, _groups(source))
        alike.setdefault(key, []).append((bound, source))
    found: dict[BoundTarget, Tensor] = {}
    for pairs in alike.values():
        if len(pairs) >= FEW:
            found.update(_stacked(pairs, decided))
    return found


def _stacked(
    pairs: Sequence[tuple[BoundTarget, BoundTarget]], decided: Mapping[BoundTarget, Tensor]
) -> dict[BoundTarget, Tensor]:
    first, source = pairs[0]
    align, blocks, shape = first.plan.align, first.plan.blocks, first.plan.shape or ()
    assert align is not None  # only such targets follow
    kept = torch.stack([decided[one] for _, one in pairs]) != 0
    dims = (0, *(dim + 1 if dim >= 0 else dim for dim in align.dims))
    placed = place_kept(
        align_kept(kept, dims, name=first.plan.name),
        (len(pairs), *shape),
        groups=_groups(source),
        blocks=None if blocks is None else Blocks((1, *blocks.size)),
        name=f"{first.plan.origin.path}: {first.plan.name}",
    )
    rows = placed.unbind()
    if blocks is not None:
        rows = tuple(compact(row, blocks.size, shape) for row in rows)
    return {bound: row for (bound, _), row in zip(pairs, rows, strict=True)}


def _groups(source: BoundTarget) -> int:
    return int(getattr(source.module, "groups", 1))


def _place(bound: BoundTarget, source: BoundTarget, kept: Tensor) -> Tensor:
    if bound.is_activation:
        if kept.ndim != 1:
            raise PlanError(
                f"{bound.plan.origin.path}: {bound.plan.name}: align.dims of an input or output "
                f"must be one dimension, which its channels follow; found {kept.ndim}",
                **bound.plan.place,
            )
        return _on_channel_blocks(bound, kept)
    shape, blocks = bound.plan.shape or (), bound.plan.blocks
    placed = place_kept(
        kept,
        shape,
        groups=_groups(source),
        blocks=blocks,
        name=f"{bound.plan.origin.path}: {bound.plan.name}",
    )
    return placed if blocks is None else compact(placed, blocks.size, shape)


def _on_channel_blocks(bound: BoundTarget, kept: Tensor) -> Tensor:
    # The mask distinguishes channels alone, so of the target's blocks only their length there
    # counts, and the shape need not have been seen.
    value = bound.plan.pruning.granularity
    if bound.plan.pruning.is_default_granularity:
        return kept
    dim = bound.plan.channel_dim
    trailing = (1,) * ((spatial_dims(bound.plan.module_type) or 0) if dim == 1 else 0)
    written = value[0] if isinstance(value, list) and isinstance(value[0], list) else value
    rank = max(len(trailing) + 2, len(written) if isinstance(written, list) else 0)
    shape = [1] * rank
    shape[dim] = len(kept)
    try:
        blocks = implementation(value).blocks(tuple(shape), bound.plan)
        if blocks.index is not None:
            raise ValueError(
                f"granularity {value!r} has numbered blocks, but an aligned input or output "
                "follows channels, whose blocks have a length; write another granularity for it"
            )
        length = resolve_size(blocks.size, shape)[dim]
    except ValueError as error:
        raise PlanError(
            f"{bound.plan.origin.path}: {bound.plan.name}: {error}", **bound.plan.place
        ) from None
    return kept.reshape(-1, length).any(1).repeat_interleave(length)
