"""From bound targets to pairs: which taps of the two models a loss compares."""

from __future__ import annotations

from collections.abc import Sequence

from tersely.distillation.calling import AskedLoss, asked_loss
from tersely.distillation.pairs import Pair, Side
from tersely.document.recipe import Stage
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.tapping import Tap
from tersely.planning.targets.joined import groups_of

_PROJECTED = {"linear": -1, "conv1x1": 1}
"""The dimension that each projection maps."""


def make_pairs(bound_targets: Sequence[BoundTarget], stages: Sequence[Stage]) -> tuple[Pair, ...]:
    """Return what the losses of a session compare.

    Args:
        bound_targets: the targets of all distillation stages, in plan order.
        stages: the stages of the recipe.

    Raises:
        BrokenPluginError: a loss cannot be imported.
    """
    groups = groups_of([bound.plan for bound in bound_targets])
    return tuple(
        _pair(
            [bound_targets[place] for place in places], stages[bound_targets[places[0]].plan.stage]
        )
        for places in groups
    )


def _side(bound: BoundTarget, loss: AskedLoss) -> Side:
    links = bound.plan.distillation.links_of(bound.plan.module) if loss.needs_teacher else ()
    return Side(
        bound=bound,
        student=Tap(keeps_graph=True, is_copying=bound.is_activation),
        teachers={link: Tap(keeps_graph=False) for link in links},
    )


def _pair(group: Sequence[BoundTarget], stage: Stage) -> Pair:
    setting = group[0].plan.distillation
    loss = asked_loss(group[0].plan)
    return Pair(
        sides=tuple(_side(bound, loss) for bound in group),
        weight=setting.weight,
        loss=loss,
        projected_dim=None if setting.projection is None else _PROJECTED[setting.projection],
        stage=stage,
        inputs={
            option: Tap(keeps_graph=True)
            for option in loss.info.input_options
            if setting.loss_options.get(option) is not None
        },
    )
