"""Losses that an algorithm looks at before the user's backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tersely.contracts.abilities import Sums
from tersely.contracts.curvature import Curvature, ObservesCurvature
from tersely.contracts.pruner import PruningTarget
from tersely.engine.isolation.foreign import ForeignCall
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import PluginError, SessionError
from tersely.instrument.modules.classes import is_sharded


def curvature_of(
    loss: Tensor, bound_targets: Sequence[BoundTarget], steps: int
) -> tuple[Curvature, list[BoundTarget]]:
    """Return a loss around the parameters of the targets that it depends on, and these targets.

    Args:
        loss: 0-dim, with a graph.
        bound_targets: parameter targets.
        steps: optimizer steps so far.

    Raises:
        SessionError: a parameter is sharded, or the loss cannot be differentiated.
    """
    bound_targets = [bound for bound in bound_targets if bound.raw.requires_grad]
    if not bound_targets:
        return Curvature(loss, (), (), steps), []
    for bound in bound_targets:
        if is_sharded(bound.raw):
            raise SessionError(
                f"{bound.plan.name} is sharded, and {bound.plan.algorithm} needs second "
                "derivatives, which fully_shard() does not allow",
                **bound.plan.place,
            )
    parameters = [bound.raw for bound in bound_targets]
    try:
        found: Sequence[Tensor | None] = torch.autograd.grad(
            loss, parameters, create_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        algorithm = bound_targets[0].plan.algorithm
        raise SessionError(
            f"{algorithm} needs second derivatives, and the loss that session.total_loss was given "
            f"has no gradient to differentiate again: {error}; call it before loss.backward()",
            algorithm=algorithm,
        ) from error
    reached = [
        (bound, parameter, gradient)
        for bound, parameter, gradient in zip(bound_targets, parameters, found, strict=True)
        if gradient is not None
    ]
    curvature = Curvature(
        loss,
        tuple(parameter for _, parameter, _ in reached),
        tuple(gradient for _, _, gradient in reached),
        steps,
    )
    return curvature, [bound for bound, _, _ in reached]


def observe(
    pruner: ObservesCurvature, curvature: Curvature, targets: Sequence[PruningTarget]
) -> Sequence[Sums]:
    """Let an algorithm look at a loss; nothing comes of one whose gradients are not finite.

    Args:
        pruner: the algorithm.
        curvature: the loss.
        targets: the targets that it depends on.

    Raises:
        PluginError: it failed, or did not return tensors for each target.
    """
    if not targets or not all(bool(one.isfinite().all()) for one in curvature.gradients):
        return []
    algorithm = targets[0].plan.algorithm
    failure = f"{algorithm} failed on the curvature of the loss"
    with ForeignCall(failure, plugin=algorithm), torch.enable_grad():
        found = list(pruner.observe_curvature(curvature, targets))
    if len(found) != len(targets):
        raise PluginError(
            f"{algorithm} returned what it observed of {len(found)} targets, expected that of "
            f"{len(targets)}, in their order",
            plugin=algorithm,
        )
    return found
