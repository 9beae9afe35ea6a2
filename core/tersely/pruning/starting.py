"""How a plan's stages begin: each algorithm made with its options, each schedule looked up."""

from __future__ import annotations

from tersely.contracts.pruner import Grows, Learns
from tersely.document.recipe import Stage
from tersely.engine.binding import Binding
from tersely.engine.clock import curve_of
from tersely.errors import PlanError
from tersely.planning.algorithms import make_pruner
from tersely.planning.plan import Plan
from tersely.pruning.run import PruningRun


def start_runs(plan: Plan, binding: Binding) -> tuple[PruningRun, ...]:
    """Make the algorithms of a plan's pruning stages.

    Args:
        plan: the plan to run.
        binding: the plan laid over a model.

    Raises:
        BrokenPluginError: a plugin cannot be imported.
        PlanError: a stage asks of its algorithm what it cannot do.
        PluginError: an algorithm cannot be made with its options.
    """
    runs = tuple(
        PruningRun(
            number,
            make_pruner(stage.algorithm, stage.options, place=stage.path),
            curve_of(stage.schedule),
            binding,
        )
        for number, stage in enumerate(plan.recipe.stages)
        if stage.method == "pruning"
    )
    for run in runs:
        _check(run, plan.recipe.stages[run.number])
    return runs


def task_loss_weight(plan: Plan, steps: int) -> float:
    """Return the weight of the user's own loss, 1 where no distillation stage says otherwise.

    Args:
        plan: the plan that runs.
        steps: optimizer steps so far.
    """
    stages = [stage for stage in plan.recipe.stages if stage.method == "distillation"]
    running = [stage for stage in stages if stage.is_running(steps)]
    return running[-1].task_loss_weight if running else 1.0


def _check(run: PruningRun, stage: Stage) -> None:
    if isinstance(run.pruner, Grows) and stage.schedule is not None:
        raise PlanError(
            f"{stage.path}.schedule: {stage.algorithm} grows its sparsity as its options say; "
            f"leave the schedule {stage.schedule.name!r} out"
        )
    if isinstance(run.pruner, Grows):
        _check_growth(run.pruner, stage)
    elif run.is_trained and stage.schedule is None and (stage.begin or stage.end is not None):
        raise PlanError(
            f"{stage.path}: {stage.algorithm} ranks by what training shows from step "
            f"{stage.begin} on, where its period begins, so it cannot mask anything there; write "
            f"a schedule, such as {{name: linear, every: 100}} for all at once 100 steps later"
        )
    if isinstance(run.pruner, Learns):
        added = next((handle for handle in run.handles if handle.is_additive), None)
        if added is not None:
            raise PlanError(
                f"{added.plan.origin.path}: {added.plan.name}: {stage.algorithm} learns through "
                f"masks that multiply, and apply_method is add; write mul"
            )


def _check_growth(pruner: Grows, stage: Stage) -> None:
    if stage.end is None:
        return
    share = pruner.factor(stage.end - stage.begin)
    if share < 1:
        raise PlanError(
            f"{stage.path}: {stage.algorithm} has reached {float(share):.0%} of its sparsity when "
            f"its period ends, {stage.end - stage.begin} steps after its beginning; write a later "
            f"until, or options that let it grow sooner"
        )
