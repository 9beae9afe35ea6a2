"""When a job compresses: before it trains, or after, once training has shown what to rank by."""

from __future__ import annotations

from tersely.contracts.pruner import Grows
from tersely.document.recipe import Recipe, Stage
from tersely.document.rules.training import NEEDS_TRAINING
from tersely.engine.clock import curve_of, factor_at
from tersely.planning.stages.algorithms import is_declared, pruner_needs
from tersely.registry.registry import registry


def is_compressed_last(recipe: Recipe) -> bool:
    """Tell whether a job has to train before it can compress.

    That is so when an algorithm learns or observes while the user trains, and wants to mask
    something at once. One that grows from nothing, by itself or along a schedule, has its masks
    in force while it trains.

    Args:
        recipe: the job's recipe.
    """
    return any(_is_late(stage) for stage in recipe.stages if stage.method == "pruning")


def _is_late(stage: Stage) -> bool:
    pruners = registry().pruners
    if pruner_needs(stage.algorithm) not in NEEDS_TRAINING:
        return False
    if is_declared(Grows, pruners[stage.algorithm], pruners.info(stage.algorithm)):
        return False
    return not stage.begin and factor_at(curve_of(stage.schedule), 0) > 0
