"""What runs in a session: each pruning stage's algorithm with everything it has gathered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from laconic.abilities import Grows, Learns, ObservesGradients, Solves
from laconic.algorithms import Pruner
from laconic.blocks import Blocks, count_blocks
from laconic.document.recipe import Stage
from laconic.errors import AttachError, SessionError
from laconic.session.clock import Curve, factor_at, is_due
from laconic.session.gradients import Gradients
from laconic.session.handles import Binding, Handle
from laconic.session.learning import DEFAULT_LEARNING_RATE, learned_of, place, step_optimizer
from laconic.session.mask_state import compact
from laconic.session.module_observing import Watch, is_observing
from laconic.session.processes import is_equal_everywhere
from laconic.session.pruning import Ranked, decide_masks, importance_of, member_of, rank, target_of
from laconic.session.solving import solve
from laconic.session.statistic import Statistic
from laconic.session.sums import add_sums, over_processes

Factor: TypeAlias = float | Fraction


@attrs.frozen(eq=False)
class Decision:
    """New masks, and new values where an algorithm changes weights.

    Attributes:
        kept: bool, or 0 and 1 in the target's dtype, True = kept, in the smallest shape that
            broadcasts to the target.
        values: new raw values, the target's shape.
    """

    kept: dict[Handle, Tensor] = attrs.field(factory=dict)
    values: dict[Handle, Tensor] = attrs.field(factory=dict)


@attrs.define(eq=False, slots=False)
class PruningRun:
    """A pruning stage in a session; mutable because it gathers what its algorithm observes.

    Attributes:
        number: index of the stage in the recipe.
        pruner: the algorithm, made with the stage's options.
        curve: how its sparsity grows, or None.
        binding: the plan laid over the model.
        observed: target -> sums of what was observed.
        gradients: those of the user's backward passes, where the algorithm observes them.
        optimizer: moves what is learned; None when there is nothing, or the user does it.
    """

    number: int
    pruner: Pruner
    curve: Curve | None
    binding: Binding
    observed: dict[Handle, dict[str, Tensor]] = attrs.field(factory=dict)
    gradients: Gradients = attrs.field(factory=Gradients)
    optimizer: torch.optim.Optimizer | None = None
    _learned_names: dict[Handle, tuple[str, ...]] = attrs.field(factory=dict)

    @cached_property
    def handles(self) -> tuple[Handle, ...]:
        """The stage's targets that are ranked by an importance of their own."""
        return tuple(
            handle
            for handle in self.binding.handles
            if handle.plan.stage == self.number and handle.plan.setting.get("align") is None
        )

    @property
    def algorithm(self) -> Pruner:
        """The algorithm."""
        return self.pruner

    @property
    def is_observing_modules(self) -> bool:
        """Whether the algorithm observes modules in calibration."""
        return is_observing(self.pruner)

    @property
    def is_sequential(self) -> bool:
        """Whether the algorithm wants to be calibrated block by block."""
        return self.is_observing_modules and bool(getattr(self.pruner, "sequential", False))

    @property
    def is_trained(self) -> bool:
        """Whether the algorithm learns or observes while the user trains."""
        return isinstance(self.pruner, (Learns, ObservesGradients))

    def factor(self, steps: int) -> Factor:
        """Return the share of the configured sparsity that is due after ``steps`` steps."""
        if isinstance(self.pruner, Grows):
            return self.pruner.factor(steps)
        return factor_at(self.curve, steps)

    def is_due(self, steps: int) -> bool:
        """Tell whether new masks are due with the optimizer step that was just made."""
        if isinstance(self.pruner, Grows):
            return self.pruner.factor(steps) > 0
        return self.curve is not None and is_due(self.curve, steps)

    def start(self) -> None:
        """Put what the algorithm learns into the modules, and listen to what it observes."""
        if isinstance(self.pruner, Learns):
            self._start_learning(self.pruner)
        if isinstance(self.pruner, ObservesGradients):
            self.gradients.listen(self.handles)

    def stop(self) -> None:
        """Stop listening; what is in the modules is removed with their instruments."""
        self.gradients.stop()

    def _start_learning(self, pruner: Learns) -> None:
        tensors: list[Tensor] = []
        for handle in self.handles:
            values = pruner.start(target_of(Ranked(handle, handle.raw.detach(), _blocks(handle))))
            place(handle, pruner, values)
            self._learned_names[handle] = tuple(values)
            tensors += list(self.learned(handle).values())
        make = getattr(pruner, "optimizer", None)
        self.optimizer = (
            torch.optim.Adam(tensors, lr=DEFAULT_LEARNING_RATE) if make is None else make(tensors)
        )

    def learned(self, handle: Handle) -> dict[str, Tensor]:
        """Return what is learned for a target, by name."""
        return learned_of(handle, self._learned_names.get(handle, ()))

    def watches(self, handles: Iterable[Handle]) -> list[Watch]:
        """Return observers of the modules of some targets."""
        return [
            Watch(
                handle, self.pruner, target_of(Ranked(handle, handle.raw.detach(), _blocks(handle)))
            )
            for handle in handles
        ]

    def forget(self, handles: Iterable[Handle]) -> None:
        """Drop what was observed of some targets."""
        for handle in handles:
            self.observed.pop(handle, None)

    def start_over(self) -> None:
        """Drop the gradients that just decided: the next masks are ranked by the steps to come."""
        if isinstance(self.pruner, ObservesGradients):
            self.observed.clear()

    def penalty(self, steps: int) -> Tensor | None:
        """Return what the algorithm adds to the loss, or None.

        Args:
            steps: optimizer steps made so far.
        """
        add = getattr(self.pruner, "penalty", None)
        if add is None or not self.handles:
            return None
        found: Tensor = add([self.learned(handle) for handle in self.handles], steps)
        return found

    def observe_step(self) -> None:
        """Let the algorithm see the gradients of the optimizer step that was just made.

        Raises:
            SessionError: a gradient or the parameter itself is gone.
        """
        pruner = self.pruner
        if not isinstance(pruner, ObservesGradients):
            return
        for handle, gradient, values in self.gradients.seen(self.handles):
            target = target_of(Ranked(handle, values, _blocks(handle)))
            part = pruner.observe_gradient(gradient, target)
            add_sums(self.observed.setdefault(handle, {}), part)

    def step_learned(self) -> None:
        """Move what is learned, unless the user's optimizer does."""
        if self.optimizer is not None:
            step_optimizer(self.optimizer)

    def decide(
        self,
        statistics: Mapping[Handle, Statistic],
        stages: Sequence[Stage],
        factor: Factor,
        *,
        handles: Sequence[Handle],
    ) -> Decision:
        """Decide on some of the stage's targets.

        Args:
            statistics: what calibration saw of inputs and outputs.
            stages: the recipe's stages.
            factor: the share of the configured sparsity that is due now, in [0, 1].
            handles: the targets.

        Raises:
            SessionError: something must be called first, and the text says what.
            CalibrationError: importances are not finite.
            PlanError: the tensors do not fit the plan after all.
            PluginError: the algorithm returned something of a wrong shape.
        """
        if factor == 0:
            return self._keep_everything(handles)
        ranked = [rank(handle, statistics, stages) for handle in handles]
        self._need_observations(handles)
        self._need_the_same_everywhere(handles)
        targets = [
            target_of(
                one,
                observed=self._observed(one.handle),
                learned=self.learned(one.handle),
            )
            for one in ranked
        ]
        pruner = self.pruner
        if isinstance(pruner, Solves):
            decision = Decision()
            for one, target in zip(ranked, targets, strict=True):
                solution = solve(pruner, target, member_of(one, one.tensor, factor))
                decision.kept[one.handle] = solution.kept
                decision.values[one.handle] = solution.tensor
            return decision
        scores = [
            importance_of(pruner, one, target) for one, target in zip(ranked, targets, strict=True)
        ]
        is_expendable = bool(getattr(pruner, "new_scores", False))
        return Decision(decide_masks(ranked, scores, factor, is_expendable=is_expendable))

    def _keep_everything(self, handles: Sequence[Handle]) -> Decision:
        # Before the first update of a schedule there may be nothing to rank by yet.
        kept = {}
        for handle in handles:
            blocks = handle.plan.blocks
            if blocks is None or handle.plan.shape is None:
                continue
            counts = count_blocks(blocks.size, handle.plan.shape)
            everything = torch.ones(counts, dtype=torch.bool, device=handle.raw.device)
            kept[handle] = compact(everything, blocks.size, handle.plan.shape)
        return Decision(kept)

    def _observed(self, handle: Handle) -> dict[str, Tensor]:
        found = self.observed.get(handle, {})
        # What calibration saw is summed up already; optimizer steps add to this process's sums.
        return over_processes(found) if isinstance(self.pruner, ObservesGradients) else found

    def _need_the_same_everywhere(self, handles: Sequence[Handle]) -> None:
        # The session averages over processes itself; the user's optimizer may not.
        if self.optimizer is not None or not isinstance(self.pruner, Learns):
            return
        learned = [one for handle in handles for one in self.learned(handle).values()]
        if not is_equal_everywhere(learned):
            first = handles[0].plan
            raise SessionError(
                f"what {first.algorithm} learned of {first.name} and others differs between the "
                f"processes: your optimizer moves session.parameters(), whose gradients "
                f"DistributedDataParallel does not average; average them before optimizer.step(), "
                f"or leave them to session.step()"
            )

    def _need_observations(self, handles: Sequence[Handle]) -> None:
        missing = [handle for handle in handles if handle not in self.observed]
        if not missing:
            return
        first = missing[0].plan
        if self.is_observing_modules:
            raise SessionError(
                f"{first.name} is ranked by what {first.algorithm} sees in calibration; call "
                f"session.calibrate(batches) before session.compress()"
            )
        if isinstance(self.pruner, ObservesGradients):
            raise SessionError(
                f"{first.name} is ranked by gradients, and {first.algorithm} has seen none; train "
                f"some steps with session.step() after optimizer.step(), then call "
                f"session.compress()"
            )


def _blocks(handle: Handle) -> Blocks:
    if handle.plan.blocks is None:
        raise AttachError(
            f"{handle.plan.name}: {handle.plan.algorithm} works on parameters, whose blocks are "
            f"known before a batch was seen; leave this target out"
        )
    return handle.plan.blocks
