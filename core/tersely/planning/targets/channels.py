"""Where the channels of an aligned input or output are: where those of its source are."""

from __future__ import annotations

import attrs

from tersely.contracts.target_plan import TargetPlan
from tersely.planning.groups.aligning import align_source
from tersely.planning.plan import Plan
from tersely.planning.stages.draft import Draft

_ACTIVATIONS = ("input", "output")


def follow_channels(plan: Plan, draft: Draft) -> Plan:
    """Give aligned inputs and outputs of elementwise modules the channel dimension they follow.

    A ReLU has no channels of its own: after a convolution they are in dimension 1, after a linear
    layer in the last.

    Args:
        plan: a plan without problems.
        draft: what it was made from.
    """
    settings = {id(target.setting): target for target in plan.targets}
    if all(one.align is None for one in settings.values()):
        return plan
    known: dict[int, int] = {}
    targets = tuple(
        attrs.evolve(target, channel_dim=_channel_dim(target, draft, known))
        if target.kind in _ACTIVATIONS and target.align is not None
        else target
        for target in plan.targets
    )
    return attrs.evolve(plan, targets=targets)


def _channel_dim(target: TargetPlan, draft: Draft, known: dict[int, int]) -> int:
    # What is known of one target is known of all that follow it, so each is asked once.
    chain: list[TargetPlan] = []
    source: TargetPlan | None = target
    found = target.channel_dim
    while source is not None:
        found = known.get(id(source), source.channel_dim)
        if id(source) in known or not _is_elementwise(source, draft):
            break
        chain.append(source)
        source = align_source(source, draft) if source.align is not None else None
    known.update((id(one), found) for one in chain)
    return found


def _is_elementwise(target: TargetPlan, draft: Draft) -> bool:
    position = draft.universe.canonical(target.module)
    if position is None or target.kind not in _ACTIVATIONS or target.channel_dim == 1:
        return False
    return not draft.universe.modules[position]._parameters
