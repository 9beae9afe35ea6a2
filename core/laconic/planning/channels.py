"""Where the channels of an aligned input or output are: where those of its source are."""

from __future__ import annotations

import attrs

from laconic.planning.aligning import align_source
from laconic.planning.draft import Draft
from laconic.planning.plan import Plan, TargetPlan

_ACTIVATIONS = ("input", "output")


def follow_channels(plan: Plan, draft: Draft) -> Plan:
    """Give aligned inputs and outputs of elementwise modules the channel dimension they follow.

    A ReLU has no channels of its own: after a convolution they are in dimension 1, after a linear
    layer in the last.

    Args:
        plan: a plan without problems.
        draft: what it was made from.
    """
    targets = tuple(
        attrs.evolve(target, channel_dim=_channel_dim(target, draft))
        if target.kind in _ACTIVATIONS and target.setting.get("align") is not None
        else target
        for target in plan.targets
    )
    return attrs.evolve(plan, targets=targets)


def _channel_dim(target: TargetPlan, draft: Draft) -> int:
    source = target
    while _is_elementwise(source, draft) and source.setting.get("align") is not None:
        followed = align_source(source, draft)
        if followed is None:
            break
        source = followed
    return source.channel_dim


def _is_elementwise(target: TargetPlan, draft: Draft) -> bool:
    position = draft.universe.canonical(target.module)
    if position is None or target.kind not in _ACTIVATIONS or target.channel_dim == 1:
        return False
    return not draft.universe.modules[position]._parameters
