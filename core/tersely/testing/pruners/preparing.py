"""Pruning sessions as contracts look at them: prepared, put in force, their targets ranked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from tersely.calibration.module_observers import watch_modules
from tersely.calibration.observing import run_batches
from tersely.contracts.pruner import Pruner, PruningTarget
from tersely.contracts.regrowing import ObservesDenseGradients
from tersely.contracts.whole_model import ScoresModel, WholeModel
from tersely.engine.observation.batches import call_observed
from tersely.json_value import Json
from tersely.pruning.ranking import rank, target_of
from tersely.pruning.run import PruningRun
from tersely.pruning.whole_model import score_model
from tersely.reporting.report import SparsityWarning
from tersely.session.attaching import attach
from tersely.session.session import Session
from tersely.testing.contract import expect
from tersely.testing.training import batches_for, train


def prepare(net: nn.Module, recipe: Mapping[str, Json]) -> Session:
    """Return a session that is ready for `compress`: calibrated, and trained if required.

    Args:
        net: a contract net; instrumented, and trained a little if the algorithm needs training.
        recipe: a recipe with one pruning stage.
    """
    session = attach(net, recipe)
    session.calibrate(batches_for(net))
    if _run(session).is_trained:
        train(session)
    return session


def compress(session: Session) -> None:
    """Apply masks, and ignore warnings: in so small a net many ratios cannot be met exactly.

    Args:
        session: a prepared session.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)
        session.compress()


def share_due(session: Session) -> Fraction:
    """Return the due share of the configured sparsity; less than 1 while sparsity still grows.

    Args:
        session: a session over a contract net.
    """
    return Fraction(_run(session).factor(session.steps))


def expect_same_masks(session: Session, other: Session) -> None:
    """Check that a restored session has the masks of the saved one.

    Args:
        session: the saved session.
        other: the restored session.

    Raises:
        ContractError: names the first target whose mask differs.
    """
    restored = other.masks()
    for module, targets in session.masks().items():
        for target, mask in targets.items():
            same = torch.equal(mask, restored[module][target])
            expect(same, f"{module}.{target}: the restored mask differs")


def check_second_masks(pruner: object, session: Session) -> None:
    """Check that regrowing masks, before any step and again after some, keeps the sparsity.

    Args:
        pruner: the algorithm.
        session: a session over a contract net, neither calibrated nor trained.

    Raises:
        ContractError: the sparsity differs.
    """
    if not isinstance(pruner, ObservesDenseGradients):
        return
    compress(session)
    before = session.sparsity()
    train(session)
    compress(session)
    after = session.sparsity()
    expect(
        after == before,
        f"the sparsity is {before} with the first masks and {after} with the second",
    )


def ranking(pruner: Any, net: nn.Module, targets: Sequence[PruningTarget]) -> Pruner:
    """Return an object that scores one target at a time: the algorithm, or its model-wide scores.

    Args:
        pruner: the algorithm.
        net: the contract net that holds the targets.
        targets: all of its targets.
    """
    if not isinstance(pruner, ScoresModel):
        ranks: Pruner = pruner
        return ranks
    return score_model(pruner, WholeModel(net, batches_for(net), call=call_observed), targets)


def ranked_targets(session: Session) -> list[PruningTarget]:
    """Return the targets as `importance` receives them, with observations and learned tensors.

    Args:
        session: a prepared session.
    """
    run = _run(session)
    watches = run.watches(run.bound_targets) if run.is_observing_modules else []
    with watch_modules(watches):
        run_batches(session.model, batches_for(session.model), None)
    seen = {watch.bound: watch.sums for watch in watches}
    return [
        target_of(
            rank(bound, {}, session.plan.recipe.stages),
            observed=seen.get(bound) or run.observed.get(bound),
            learned=run.learned(bound),
        )
        for bound in run.bound_targets
    ]


def is_new_tensor(one: Tensor, other: Tensor, target: PruningTarget) -> bool:
    """Tell whether scores share no memory with other tensors of the target.

    Args:
        one: the scores of a target.
        other: its scores from another call.
        target: the target.
    """
    known = (other, target.tensor, *target.observed.values(), *target.learned.values())
    own = one.untyped_storage().data_ptr()
    return all(own != tensor.untyped_storage().data_ptr() for tensor in known)


def _run(session: Session) -> PruningRun:
    (run,) = session._engines.pruning.runs
    return run
