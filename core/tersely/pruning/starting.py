"""How a plan's stages begin: each algorithm made with its options, each schedule looked up."""

from __future__ import annotations

from tersely.contracts.pruner import Grows, Learns
from tersely.contracts.regrowing import ObservesDenseGradients
from tersely.document.recipe import Stage
from tersely.engine.clock import curve_of
from tersely.engine.targets.binding import Binding
from tersely.errors import PlanError, PluginError
from tersely.planning.stages.algorithms import make_pruner
from tersely.pruning.holding import check_hold
from tersely.pruning.run import PruningRun


def start_runs(binding: Binding) -> tuple[PruningRun, ...]:
    """Make the algorithms of a plan's pruning stages.

    Args:
        binding: the plan, bound to a model.

    Raises:
        BrokenPluginError: a plugin cannot be imported.
        PlanError: a stage asks its algorithm for something that it cannot do.
        PluginError: an algorithm cannot be made with its options.
    """
    runs = tuple(
        PruningRun(
            number,
            stage,
            make_pruner(stage.algorithm, stage.options, place=stage.path),
            binding,
            curve_of(stage.schedule),
        )
        for number, stage in enumerate(binding.plan.recipe.stages)
        if stage.method == "pruning"
    )
    for run in runs:
        _check(run, run.stage)
    return runs


def _check(run: PruningRun, stage: Stage) -> None:
    check_hold(run)
    if isinstance(run.algorithm, Grows) and stage.schedule is not None:
        raise PlanError(
            f"{stage.path}.schedule: {stage.algorithm} grows its sparsity as its options say; "
            f"leave the schedule {stage.schedule.name!r} out",
            path=stage.path,
            algorithm=stage.algorithm,
        )
    if isinstance(run.algorithm, Grows):
        _check_growth(run.algorithm, stage)
    elif run.is_trained and stage.schedule is None and (stage.begin or stage.end is not None):
        raise PlanError(
            f"{stage.path}: {stage.algorithm} ranks by what training shows from step "
            f"{stage.begin} on, where its period begins, so it cannot mask anything there; write "
            "a schedule, such as {name: linear, every: 100} for all at once 100 steps later",
            path=stage.path,
            algorithm=stage.algorithm,
        )
    if isinstance(run.algorithm, Learns) and isinstance(run.algorithm, ObservesDenseGradients):
        raise PluginError(
            f"{stage.algorithm} declares Learns and ObservesDenseGradients: these exclude each "
            "other, because gradients depend on what masked() returns; declare ObservesGradients, "
            "or remove Learns",
            plugin=stage.algorithm,
        )
    if isinstance(run.algorithm, Learns):
        added = next((bound for bound in run.bound_targets if bound.is_additive), None)
        if added is not None:
            raise PlanError(
                f"{added.plan.origin.path}: {added.plan.name}: {stage.algorithm} learns through "
                "masks that multiply, and apply_method is add; write mul",
                **added.plan.place,
            )


def _check_growth(pruner: Grows, stage: Stage) -> None:
    if stage.end is None:
        return
    share = pruner.factor(stage.end - stage.begin)
    if share < 1:
        raise PlanError(
            f"{stage.path}: {stage.algorithm} has reached {float(share):.0%} of its sparsity when "
            f"its period ends, {stage.end - stage.begin} steps after its beginning; write a later "
            "until, or options that let it grow sooner",
            path=stage.path,
            algorithm=stage.algorithm,
        )
