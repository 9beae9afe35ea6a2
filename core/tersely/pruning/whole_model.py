"""Algorithms that score all their targets at once, on a model that is restored afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from tersely.contracts.pruner import PruningTarget
from tersely.contracts.whole_model import ScoresModel, WholeModel
from tersely.engine.context import Context
from tersely.engine.isolation.foreign import ForeignCall
from tersely.engine.isolation.undisturbed import undisturbed
from tersely.engine.observation.batches import call_observed
from tersely.engine.processes import summed
from tersely.errors import PluginError, SessionError
from tersely.instrument.modules.classes import is_sharded
from tersely.pruning.returned_values import check_scores


@attrs.frozen(eq=False)
class KnownScores:
    """A pruner that knows the scores of its targets; what `score_model` returns.

    Attributes:
        scores: the target's full name -> its scores.
    """

    scores: Mapping[str, Tensor]

    def importance(self, target: PruningTarget) -> Tensor:
        """Return the scores of a target."""
        return self.scores[target.name]


def whole_model(context: Context, algorithm: str) -> WholeModel:
    """Return the session's model with what it can be run with.

    Args:
        context: what the session's engines share.
        algorithm: the algorithm that is going to score it, for errors.

    Raises:
        SessionError: parameters are sharded.
    """
    sharded = next((n for n, one in context.model.named_parameters() if is_sharded(one)), None)
    if sharded is not None:
        raise SessionError(
            f"{sharded} is sharded, and {algorithm} scores the whole model, which fully_shard() "
            "does not allow; compress before fully_shard()",
            target=sharded,
            algorithm=algorithm,
        )
    kept = context.batches
    if kept is not None:
        return WholeModel(context.model, kept.batches, call=kept.forward or call_observed)
    example = context.example_inputs
    return WholeModel(context.model, () if example is None else (example,), call=call_observed)


def score_model(
    pruner: ScoresModel, whole: WholeModel, targets: Sequence[PruningTarget]
) -> KnownScores:
    """Let an algorithm score all its targets, and restore the model.

    Args:
        pruner: the algorithm.
        whole: the model, and what it can be run with.
        targets: the targets, as the algorithm sees them.

    Raises:
        SessionError: it needs inputs, and there are none.
        PluginError: it failed, or did not return a tensor of floats for each target.
    """
    if not targets:
        return KnownScores({})
    algorithm = targets[0].plan.algorithm
    if pruner.needs_inputs and not whole.batches:
        raise SessionError(
            f"{algorithm} scores the whole model and has to run it for that, and there are no "
            "inputs; call session.calibrate(batches) before session.compress(), also in a "
            "session that was loaded, or attach with example_inputs=...",
            algorithm=algorithm,
        )
    with undisturbed(whole.module), torch.enable_grad():
        found = _asked(pruner, whole, targets, algorithm=algorithm)
    if len(found) != len(targets):
        raise PluginError(
            f"{algorithm} returned scores of {len(found)} targets, expected those of "
            f"{len(targets)}, in their order",
            plugin=algorithm,
        )
    return KnownScores(
        {
            target.name: summed(check_scores(scores, target).detach())
            for target, scores in zip(targets, found, strict=True)
        }
    )


def _asked(
    pruner: ScoresModel, whole: WholeModel, targets: Sequence[PruningTarget], *, algorithm: str
) -> Sequence[Any]:
    with ForeignCall(f"{algorithm} failed on the model", plugin=algorithm):
        return list(pruner.score_model(whole, targets))
