"""What runs in a session: each pruning stage's algorithm with everything it has gathered."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.blocks import Blocks
from tersely.calibration.watching import Watch, is_observing, is_sequential
from tersely.contracts.pruner import (
    Grows,
    Learns,
    ObservesGradients,
    Penalizes,
    Pruner,
    PruningTarget,
)
from tersely.document.recipe import Stage
from tersely.engine.binding import Binding, Handle
from tersely.engine.clock import Curve, factor_at, is_due
from tersely.engine.optimizing import make_optimizer, step_optimizer
from tersely.engine.sums import add_sums
from tersely.errors import AttachError
from tersely.pruning.gradients import Gradients
from tersely.pruning.learned_masks import displace, learned_of, place
from tersely.pruning.ranking import Ranked, target_of

Factor: TypeAlias = float | Fraction


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
    _is_started: bool = False

    @cached_property
    def handles(self) -> tuple[Handle, ...]:
        """The stage's targets that are ranked by an importance of their own."""
        return tuple(
            handle
            for handle in self.binding.handles
            if handle.plan.stage == self.number and handle.plan.align is None
        )

    @property
    def stage(self) -> Stage:
        """The stage."""
        return self.binding.plan.recipe.stages[self.number]

    @property
    def algorithm(self) -> Pruner:
        """The algorithm."""
        return self.pruner

    @property
    def is_observing_modules(self) -> bool:
        """Whether the algorithm observes modules in calibration."""
        return is_observing(self.pruner)

    @property
    def is_calibrated(self) -> bool:
        """Whether the algorithm ranks by what calibration shows."""
        return self.is_observing_modules or any(one.is_activation for one in self.handles)

    @property
    def is_sequential(self) -> bool:
        """Whether the algorithm wants to be calibrated block by block."""
        return self.is_observing_modules and is_sequential(self.pruner)

    @property
    def is_trained(self) -> bool:
        """Whether the algorithm learns or observes while the user trains."""
        return isinstance(self.pruner, (Learns, ObservesGradients))

    def factor(self, steps: int) -> Factor:
        """Return the share of the configured sparsity that is due after ``steps`` steps."""
        if not self.stage.has_begun(steps):
            return 0
        if isinstance(self.pruner, Grows):
            return self.pruner.factor(steps - self.stage.begin)
        return factor_at(self.curve, steps)

    def is_due(self, steps: int) -> bool:
        """Tell whether new masks are due with the optimizer step that was just made."""
        if not self.stage.is_running(steps - 1):
            return False
        if isinstance(self.pruner, Grows):
            return self.pruner.factor(steps - self.stage.begin) > 0
        return self.curve is not None and is_due(self.curve, steps)

    def start(self) -> None:
        """Put what the algorithm learns into the modules, and listen to what it observes."""
        if self._is_started:
            return
        if isinstance(self.pruner, Learns):
            self._start_learning(self.pruner)
        if isinstance(self.pruner, ObservesGradients):
            self.gradients.listen(self.handles)
        self._is_started = True

    def unstart(self) -> None:
        """Take out of the modules what `start` put there."""
        if not self._is_started:
            return
        self.gradients.stop()
        for handle, names in self._learned_names.items():
            displace(handle, names)
        self._learned_names.clear()
        self.optimizer = None
        self._is_started = False

    def stop(self) -> None:
        """Stop listening; what is in the modules is removed with their instruments."""
        self.gradients.stop()

    def _start_learning(self, pruner: Learns) -> None:
        tensors: list[Tensor] = []
        for handle in self.handles:
            values = pruner.start(_known_target(handle, handle.raw.detach()))
            place(handle, pruner, values)
            self._learned_names[handle] = tuple(values)
            tensors += list(self.learned(handle).values())
        self.optimizer = make_optimizer(pruner, tensors)

    def learned(self, handle: Handle) -> dict[str, Tensor]:
        """Return what is learned for a target, by name."""
        return learned_of(handle, self._learned_names.get(handle, ()))

    def watches(self, handles: Iterable[Handle]) -> list[Watch]:
        """Return observers of the modules of some targets."""
        return [
            Watch(
                handle,
                self.pruner,
                _known_target(handle, handle.raw.detach()),
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
        pruner = self.pruner
        if not isinstance(pruner, Penalizes) or not self.handles:
            return None
        if not self.stage.is_running(steps):
            return None
        learned = [self.learned(handle) for handle in self.handles]
        return pruner.penalty(learned, steps - self.stage.begin)

    def observe_step(self) -> None:
        """Let the algorithm see the gradients of the optimizer step that was just made.

        Raises:
            SessionError: a gradient or the parameter itself is gone.
        """
        pruner = self.pruner
        if not isinstance(pruner, ObservesGradients):
            return
        for handle, gradient, values in self.gradients.seen(self.handles):
            target = _known_target(handle, values)
            part = pruner.observe_gradient(gradient, target)
            add_sums(self.observed.setdefault(handle, {}), part)

    def step_learned(self) -> None:
        """Move what is learned, unless the user's optimizer does."""
        if self.optimizer is not None:
            step_optimizer(self.optimizer)


def _known_target(handle: Handle, values: Tensor) -> PruningTarget:
    return target_of(Ranked(handle, values, _known_blocks(handle)))


def _known_blocks(handle: Handle) -> Blocks:
    if handle.plan.blocks is None:
        raise AttachError(
            f"{handle.plan.name}: {handle.plan.algorithm} works on parameters, whose blocks are "
            f"known before a batch was seen; leave this target out"
        )
    return handle.plan.blocks
