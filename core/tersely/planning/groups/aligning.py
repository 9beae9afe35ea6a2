"""Checks of targets that follow others: sources, cycles and dimensions (rule B7)."""

from __future__ import annotations

from collections.abc import Sequence

from tersely.contracts.settings import Align
from tersely.contracts.target_plan import TargetPlan
from tersely.planning.stages.draft import Draft
from tersely.planning.targets.addresses import declared_channels


def check_aligns(targets: Sequence[TargetPlan], draft: Draft) -> None:
    """Add every align that cannot be followed to the draft's problems.

    Args:
        targets: the pruning targets with ``align``.
        draft: the plan they belong to.
    """
    settled: set[int] = set()
    for target in targets:
        align = target.align
        if align is None:
            continue
        source = align_source(target, draft)
        if source is None:
            draft.blame(target.origin.path, target.name, _missing_source(target, align, draft))
        elif source.stage != target.stage:
            draft.blame(
                target.origin.path,
                target.name,
                f"it is aligned with {source.name}, which {source.origin} prunes in another stage; "
                "a target follows one of its own stage",
            )
        else:
            _check_dims(target, source, list(align.dims), draft=draft)
        _check_circle(target, draft, settled)


def align_source(target: TargetPlan, draft: Draft) -> TargetPlan | None:
    """Return the planned target that another one aligns with, or None when there is none.

    Args:
        target: a pruning target with ``align``.
        draft: the plan it belongs to.
    """
    align = target.align
    if align is None:
        return None
    return draft.find("pruning", align.module_for(target.module), align.target_name)


def _check_circle(target: TargetPlan, draft: Draft, settled: set[int]) -> None:
    # Every target is walked over once: what an earlier walk settled needs no second look.
    chain: dict[int, TargetPlan] = {}
    current: TargetPlan | None = target
    while current is not None and id(current) not in settled:
        if id(current) in chain:
            members = list(chain.values())
            circle = members[list(chain).index(id(current)) :]
            names = " -> ".join(one.name for one in [*circle, current])
            draft.blame(current.origin.path, current.name, f"align forms a cycle: {names}")
            break
        chain[id(current)] = current
        current = align_source(current, draft) if current.align is not None else None
    settled.update(chain)


def _missing_source(target: TargetPlan, align: Align, draft: Draft) -> str:
    module = align.module_for(target.module)
    found = f"it is aligned with {align.source_name(target.module)}"
    if module not in draft.universe.index:
        near = draft.suggest(module, draft.universe.names)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{found}, but the model has no module {module!r}{hint}"
    return (
        f"{found}, which no entry prunes; add it to an entry's targets, or leave "
        f"{target.target!r} out with target_names"
    )


def _check_dims(target: TargetPlan, source: TargetPlan, dims: list[int], *, draft: Draft) -> None:
    if source.shape is None:
        return
    rank = len(source.shape)
    wrong = [dim for dim in dims if not -rank <= dim < rank]
    if wrong:
        problem = f"align.dims {wrong} is outside {source.name}, which has {rank} dimensions"
        draft.blame(target.origin.path, target.name, problem)
    elif len({dim % rank for dim in dims}) < len(dims):
        problem = f"align.dims {dims} names a dimension of {source.name} twice"
        draft.blame(target.origin.path, target.name, problem)
    else:
        _check_lengths(target, source, dims, draft=draft)


def _check_lengths(
    target: TargetPlan, source: TargetPlan, dims: list[int], *, draft: Draft
) -> None:
    if source.shape is None:
        return
    if target.shape is None:
        _check_channels(target, source, dims, draft=draft)
        return
    taken = f"align.dims {dims} of {source.name}"
    if len(dims) > len(target.shape):
        draft.blame(
            target.origin.path,
            target.name,
            f"{taken} covers {len(dims)} dimensions, the target has {len(target.shape)}; leave "
            "some out",
        )
        return
    position = draft.universe.canonical(source.module) or 0
    groups = getattr(draft.universe.modules[position], "groups", 1)
    for dim, length in zip(dims, target.shape, strict=False):
        # A grouped or transposed convolution's weight counts the channels of one group.
        found = source.shape[dim]
        if found not in (1, length) and found * groups != length:
            draft.blame(
                target.origin.path,
                target.name,
                f"{taken} has {found} positions, the target has {length}; choose align.dims so "
                "that both have the same length",
            )


def _check_channels(
    target: TargetPlan, source: TargetPlan, dims: list[int], *, draft: Draft
) -> None:
    position = draft.universe.canonical(target.module)
    if position is None or source.shape is None or len(dims) != 1:
        return
    channels = declared_channels(draft.universe.modules[position], target.target)
    found = source.shape[dims[0]]
    if channels not in (None, found):
        draft.blame(
            target.origin.path,
            target.name,
            f"align.dims {dims} of {source.name} has {found} positions, and {channels} channels "
            f"follow it; choose the dimension of {source.name} that makes them, of a transposed "
            "convolution [1]",
        )
