"""What runs in a session: each pruning stage's algorithm with everything it has gathered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import attrs
import torch
from torch import Tensor

from laconic.algorithms import Learns, ObservesGradients, Pruner, PruningTarget, Solves
from laconic.document.recipe import Stage
from laconic.errors import PluginError, SessionError
from laconic.planning.plan import Plan
from laconic.registry.registry import registry
from laconic.session.clock import Curve, curve_of, factor_at, is_due
from laconic.session.handles import Handle
from laconic.session.learning import DEFAULT_LEARNING_RATE, learned_of, place, step_optimizer
from laconic.session.mask_state import compact
from laconic.session.module_observing import Watch
from laconic.session.observing import Statistic
from laconic.session.pruning import Ranked, decide_masks, importance_of, member_of, rank, target_of
from laconic.session.solving import solve
from laconic.session.sums import add_sums, over_processes


@attrs.frozen(eq=False)
class Decision:
    """New masks, and new values where an algorithm changes weights.

    Attributes:
        kept: bool, True = kept, in the smallest shape that broadcasts to the target.
        values: new raw values, the target's shape.
    """

    kept: dict[Handle, Tensor]
    values: dict[Handle, Tensor]


@attrs.define(eq=False)
class PruningRun:
    """A pruning stage in a session; mutable because it gathers what its algorithm observes.

    Attributes:
        number: index of the stage in the recipe.
        pruner: the algorithm, made with the stage's options.
        curve: how its sparsity grows, or None.
        handles: the stage's targets that are ranked by an importance of their own.
        observed: target -> sums of what was observed.
        learned_names: target -> names of what is learned for it.
        before: target -> its values at the last backward pass, for gradients.
        optimizer: moves what is learned, or None when there is nothing or the user does it.
    """

    number: int
    pruner: Pruner
    curve: Curve | None
    handles: tuple[Handle, ...]
    observed: dict[Handle, dict[str, Tensor]] = attrs.field(factory=dict)
    learned_names: dict[Handle, tuple[str, ...]] = attrs.field(factory=dict)
    before: dict[Handle, Tensor] = attrs.field(factory=dict)
    optimizer: torch.optim.Optimizer | None = None

    @property
    def needs_gradients(self) -> bool:
        """Whether the algorithm observes gradients."""
        return isinstance(self.pruner, ObservesGradients)

    @property
    def is_stepwise(self) -> bool:
        """Whether masks change while the user trains."""
        return self.curve is not None or self._own_factor(0) is not None

    def factor(self, steps: int) -> float | Fraction:
        """Return the share of the configured sparsity that is due after ``steps`` steps."""
        own = self._own_factor(steps)
        return factor_at(self.curve, steps) if own is None else own

    def is_due(self, steps: int) -> bool:
        """Tell whether new masks are due with the optimizer step that was just made."""
        own = self._own_factor(steps)
        if own is not None:
            return own > 0
        return self.curve is not None and is_due(self.curve, steps)

    def _own_factor(self, steps: int) -> float | None:
        # Movement pruning defines its own growth, in steps, as part of the algorithm.
        growth = getattr(self.pruner, "factor", None)
        return None if growth is None else growth(steps)

    def start(self) -> None:
        """Put what the algorithm learns into the modules, with an optimizer to move it."""
        pruner = self.pruner
        if not isinstance(pruner, Learns):
            return
        tensors = []
        for handle in self.handles:
            target = target_of(Ranked(handle, handle.raw.detach(), _blocks(handle)))
            values = pruner.start(target)
            place(handle, values)
            self.learned_names[handle] = tuple(values)
            tensors += list(self.learned(handle).values())
        make = getattr(pruner, "optimizer", None)
        self.optimizer = (
            torch.optim.Adam(tensors, lr=DEFAULT_LEARNING_RATE) if make is None else make(tensors)
        )

    def learned(self, handle: Handle) -> dict[str, Tensor]:
        """Return what is learned for a target, by name."""
        return learned_of(handle, self.learned_names.get(handle, ()))

    def watches(self, handles: Iterable[Handle]) -> list[Watch]:
        """Return observers of the modules of some targets."""
        return [Watch(one, self.pruner, self._target(one)) for one in handles]

    def penalty(self, steps: int) -> Tensor | None:
        """Return what the algorithm adds to the loss, or None.

        Args:
            steps: optimizer steps made so far.
        """
        add = getattr(self.pruner, "penalty", None)
        if add is None:
            return None
        found: Tensor = add([self.learned(handle) for handle in self.handles], steps)
        return found

    def observe_step(self) -> None:
        """Let the algorithm see the gradients of the optimizer step that was just made.

        Raises:
            SessionError: a gradient is gone.
        """
        pruner = self.pruner
        if not isinstance(pruner, ObservesGradients):
            return
        gradients = {handle: handle.gradient() for handle in self.handles}
        for handle, gradient in gradients.items():
            if gradient is None or handle not in self.before:
                raise SessionError(
                    f"{handle.plan.name} has no gradient: {handle.plan.algorithm} observes "
                    f"gradients in session.step(), so call it after optimizer.step() and before "
                    f"optimizer.zero_grad()"
                )
        # A loss scaler overflows now and then; the optimizer made no step then.
        if not all(bool(one.isfinite().all()) for one in gradients.values() if one is not None):
            return
        for handle, gradient in gradients.items():
            target = self._target(handle, tensor=self.before[handle])
            part = pruner.observe_gradient(gradient, target)  # type: ignore[arg-type]  # checked above
            add_sums(self.observed.setdefault(handle, {}), part)

    def step_learned(self) -> None:
        """Move what is learned, unless the user's optimizer does."""
        if self.optimizer is not None:
            step_optimizer(self.optimizer)

    def decide(
        self,
        statistics: Mapping[Handle, Statistic],
        stages: Sequence[Stage],
        factor: float | Fraction,
        *,
        handles: Sequence[Handle] | None = None,
    ) -> Decision:
        """Decide on the stage's targets, or on some of them.

        Args:
            statistics: what calibration saw of inputs and outputs.
            stages: the recipe's stages.
            factor: the share of the configured sparsity that is due now, in [0, 1].
            handles: the targets, or None for all.
        """
        chosen = self.handles if handles is None else handles
        ranked = [rank(handle, statistics, stages) for handle in chosen]
        targets = [
            target_of(
                one,
                observed=over_processes(self.observed.get(one.handle, {})),
                learned=self.learned(one.handle),
            )
            for one in ranked
        ]
        if isinstance(self.pruner, Solves):
            return self._solve(ranked, targets, factor)
        scores = [
            importance_of(self.pruner, one, target)
            for one, target in zip(ranked, targets, strict=True)
        ]
        return Decision(decide_masks(ranked, scores, factor), {})

    def _solve(
        self, ranked: Sequence[Ranked], targets: Sequence[PruningTarget], factor: float | Fraction
    ) -> Decision:
        pruner = self.pruner
        decision = Decision({}, {})
        if not isinstance(pruner, Solves):
            return decision
        for one, target in zip(ranked, targets, strict=True):
            member = member_of(one, one.tensor, factor)
            solution = solve(pruner, target, member, factor)
            decision.kept[one.handle] = compact(solution.kept, (1,) * len(one.shape), one.shape)
            decision.values[one.handle] = solution.tensor
        return decision

    def _target(self, handle: Handle, *, tensor: Tensor | None = None) -> PruningTarget:
        values = handle.raw.detach() if tensor is None else tensor
        return target_of(Ranked(handle, values, _blocks(handle)), learned=self.learned(handle))


def _blocks(handle: Handle) -> Any:
    if handle.plan.blocks is None:
        raise SessionError(f"{handle.plan.name} has no blocks; plan again")
    return handle.plan.blocks


def start_runs(plan: Plan, handles: Sequence[Handle]) -> tuple[PruningRun, ...]:
    """Make the algorithms of a plan's pruning stages.

    Args:
        plan: the plan to run.
        handles: its targets, bound to a model.

    Raises:
        BrokenPluginError: a plugin cannot be imported.
        PluginError: an algorithm cannot be made with its options.
    """
    ranked: dict[int, list[Handle]] = {}
    for handle in handles:
        if handle.plan.setting.get("align") is None:
            ranked.setdefault(handle.plan.stage, []).append(handle)
    return tuple(
        PruningRun(number, _make(stage), curve_of(stage.schedule), tuple(ranked.get(number, ())))
        for number, stage in enumerate(plan.recipe.stages)
        if stage.method == "pruning"
    )


def _make(stage: Stage) -> Pruner:
    implementation = registry().pruners[stage.algorithm]
    try:
        pruner: Pruner = implementation(**stage.options)
    except Exception as error:  # foreign code: whatever it raises belongs in the message
        raise PluginError(
            f"{stage.path}: {stage.algorithm} could not be made with options "
            f"{dict(stage.options)}: {type(error).__name__}: {error}"
        ) from error
    return pruner
