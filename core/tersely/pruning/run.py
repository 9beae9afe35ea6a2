"""Pruning stages in a session: each algorithm, and everything that it has gathered."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

import attrs
from torch import Tensor

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.abilities import Penalizes
from tersely.contracts.curvature import ObservesCurvature
from tersely.contracts.pruner import (
    Grows,
    Learns,
    ObservesGradients,
    Pruner,
    PruningTarget,
)
from tersely.contracts.regrowing import ObservesDenseGradients
from tersely.contracts.whole_model import ScoresModel
from tersely.engine.clock import Curve, factor_at, is_due
from tersely.engine.isolation.foreign import ForeignCall, calling
from tersely.engine.observation.sums import add_sums, filled
from tersely.engine.processes import gather
from tersely.engine.run import Run
from tersely.engine.state.journal import Journal
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import AttachError, SessionError
from tersely.pruning.curvature import curvature_of, observe
from tersely.pruning.dense_gradients import place_dense_gradients
from tersely.pruning.gradients import Gradients, frozen, need_learning
from tersely.pruning.learned_masks import learned_of, place
from tersely.pruning.ranking import Ranked, target_of

Factor: TypeAlias = float | Fraction

OBSERVES_TRAINING = (ObservesGradients, ObservesCurvature)
"""Abilities that observe steps of training, which count for the next masks."""


@attrs.define(eq=False, slots=False)
class PruningRun(Run[Pruner]):
    """A pruning stage in a session.

    Attributes:
        curve: how its sparsity grows, or None.
        gradients: those of the user's backward passes, where the algorithm observes them.
        is_late: whether masks that were due wait for a step whose gradients are finite.
    """

    curve: Curve | None
    gradients: Gradients = attrs.field(factory=Gradients, kw_only=True)
    is_late: bool = attrs.field(default=False, kw_only=True)
    _has_overflowed: bool = attrs.field(default=False, kw_only=True)
    _learned_names: dict[BoundTarget, tuple[str, ...]] = attrs.field(factory=dict, kw_only=True)
    _is_started: bool = attrs.field(default=False, kw_only=True)

    @cached_property
    def bound_targets(self) -> tuple[BoundTarget, ...]:
        """The stage's targets that are ranked by an importance of their own."""
        return tuple(bound for bound in self.all_bound_targets if bound.plan.align is None)

    @property
    def is_calibrated(self) -> bool:
        """Whether the algorithm ranks by what calibration shows."""
        is_ranking_activations = any(one.is_activation for one in self.bound_targets)
        return self.is_observing_modules or is_ranking_activations or self._is_scoring_model

    @property
    def is_looking_again(self) -> bool:
        """Whether every `compress` runs the calibration batches again."""
        return self.is_sequential or self._is_scoring_model

    @property
    def is_optional_calibration(self) -> bool:
        """Whether something else replaces batches, as example inputs do if the model is run."""
        is_ranking_activations = any(one.is_activation for one in self.bound_targets)
        return self._is_scoring_model and not is_ranking_activations

    @property
    def _is_scoring_model(self) -> bool:
        return isinstance(self.algorithm, ScoresModel)

    @property
    def is_learning(self) -> bool:
        """Whether the algorithm learns something for each target."""
        return isinstance(self.algorithm, Learns)

    @property
    def is_trained(self) -> bool:
        """Whether the algorithm learns or observes while the user trains."""
        return isinstance(self.algorithm, (Learns, *OBSERVES_TRAINING))

    def factor(self, steps: int) -> Factor:
        """Return the share of the configured sparsity that is due after ``steps`` steps."""
        if not self.stage.has_begun(steps):
            return 0
        if isinstance(self.algorithm, Grows):
            return self.algorithm.factor(steps - self.stage.begin)
        return factor_at(self.curve, steps)

    def is_due(self, steps: int) -> bool:
        """Tell whether new masks are due with the optimizer step that was just made."""
        if not self.stage.is_running(steps - 1):
            return False
        if self.is_late:
            return True
        if isinstance(self.algorithm, Grows):
            return self.algorithm.factor(steps - self.stage.begin) > 0
        return self.curve is not None and is_due(self.curve, steps)

    def start(self) -> None:
        """Put what the algorithm learns into the modules, and listen to what it observes."""
        if self._is_started:
            return
        if isinstance(self.algorithm, Learns):
            self._start_learning(self.algorithm)
        if isinstance(self.algorithm, ObservesGradients):
            self.gradients.listen(self.bound_targets)
        elif isinstance(self.algorithm, ObservesCurvature):
            need_learning(self.bound_targets)
        if isinstance(self.algorithm, ObservesDenseGradients):
            self.gradients.gather_dense(place_dense_gradients(self.bound_targets, self.stage.hold))
        self._is_started = True

    def await_step(self, steps: int) -> None:
        """Gather dense gradients of the next optimizer step if the algorithm looks at it.

        Args:
            steps: optimizer steps so far.
        """
        if self.gradients.dense:
            self.gradients.await_step(is_wanted=self._is_observed_at(steps + 1))

    def _is_observed_at(self, steps: int) -> bool:
        pruner = self.algorithm
        if not isinstance(pruner, (ObservesDenseGradients, ObservesCurvature)):
            return True
        if not pruner.only_when_due:
            return True
        is_scheduled = self.curve is not None or isinstance(pruner, Grows)
        return not is_scheduled or self.is_due(steps)

    def stop(self) -> None:
        """Stop listening; what is in the modules is removed with their instruments."""
        self.gradients.stop()

    def _start_learning(self, pruner: Learns) -> None:
        for bound in self.bound_targets:
            with calling(bound.plan, "start"):
                values = pruner.start(_known_target(bound, bound.raw.detach()))
            place(bound, pruner, values)
            self._learned_names[bound] = tuple(values)
        if any(self._learned_names.values()):  # a stage may select nothing of this model
            self.make_optimizer()

    def learned(self, bound: BoundTarget) -> dict[str, Tensor]:
        """Return what is learned for a target, by name."""
        return learned_of(bound, self._learned_names.get(bound, ()))

    def seen_as(self, bound: BoundTarget) -> PruningTarget:
        """Return a target as the algorithm sees it while it observes the target's module."""
        return _known_target(bound, bound.raw.detach())

    def note(self, journal: Journal, *, is_step: bool) -> None:
        """Note what a change may touch; in a step also sums of gradients, which grow in place."""
        super().note(journal, is_step=is_step)
        journal.note_attributes(self, "is_late", "_has_overflowed")
        if is_step and isinstance(self.algorithm, OBSERVES_TRAINING):
            self.observed = {
                bound: {name: tensor.clone() for name, tensor in sums.items()}
                for bound, sums in self.observed.items()
            }
        if self._is_started:
            return
        journal.note_attributes(self, "_learned_names", "_is_started")
        journal.on_undo(self.gradients.stop)
        if self.is_learning:
            owners = (one for bound in self.bound_targets for one, _ in bound.owners)
            journal.note_modules(dict.fromkeys(owners))

    def start_over(self) -> None:
        """Drop what training showed and was just used: later masks are ranked by later steps."""
        if isinstance(self.algorithm, OBSERVES_TRAINING):
            self.observed = {}
            self.is_late = self._has_overflowed = False

    def put_off(self) -> bool:
        """Tell whether due masks have to wait because everything that ranks them overflowed.

        A loss scaler overflows now and then, and the next step's gradients are as good.
        """
        if not isinstance(self.algorithm, OBSERVES_TRAINING):
            return False
        everyone = gather((self._has_overflowed, bool(self.observed)))
        has_seen = any(seen for _, seen in everyone)
        self.is_late = not has_seen and any(overflowed for overflowed, _ in everyone)
        self._has_overflowed = False
        return self.is_late

    def need_gradients(self, bound_targets: Sequence[BoundTarget]) -> None:
        """Refuse to rank a target that no backward pass reached, while others have gradients.

        Args:
            bound_targets: the targets that are about to be ranked.

        Raises:
            SessionError: names the first such target.
        """
        if not isinstance(self.algorithm, OBSERVES_TRAINING):
            return
        # A batch may reach a layer in one process alone, and all of them add up the same sums.
        self.observed |= filled(self.observed, bound_targets)
        if not self.observed:
            return
        lost = next((bound for bound in bound_targets if bound not in self.observed), None)
        if lost is not None:
            if not lost.raw.requires_grad:
                raise frozen(lost)
            raise SessionError(
                f"{lost.plan.name} had no gradient in any step that counts for these masks: it is "
                "unused, or a condition such as a router passed it over in every step; "
                f"{lost.plan.algorithm} ranks by gradients: train for more steps, or leave it out "
                "with exclude_op_names",
                **lost.plan.place,
            )

    def penalty(self, steps: int) -> Tensor | None:
        """Return what the algorithm adds to the loss, or None.

        Args:
            steps: optimizer steps made so far.
        """
        pruner = self.algorithm
        if not isinstance(pruner, Penalizes) or not self.bound_targets:
            return None
        if not self.stage.is_running(steps):
            return None
        learned, name = [self.learned(one) for one in self.bound_targets], self.stage.algorithm
        with ForeignCall(f"{name} failed in penalty()", plugin=name):
            return pruner.penalty(learned, steps - self.stage.begin)

    def observe_step(self, steps: int) -> None:
        """Let the algorithm see the gradients of the optimizer step that was just made.

        Args:
            steps: optimizer steps so far, that one counted.

        Raises:
            SessionError: a gradient or the parameter itself is gone.
        """
        pruner = self.algorithm
        if not isinstance(pruner, ObservesGradients) or not self._is_observed_at(steps):
            return
        found = self.gradients.seen(self.bound_targets)
        self._has_overflowed = self._has_overflowed or not found
        for bound, gradient, values in found:
            target = _known_target(bound, values)
            with calling(bound.plan, "observe_gradient"):
                part = pruner.observe_gradient(gradient, target)
            add_sums(self.observed.setdefault(bound, {}), part)

    def observe_loss(self, loss: Tensor, steps: int) -> None:
        """Let the algorithm see a loss before the user's backward pass.

        Args:
            loss: 0-dim, with a graph.
            steps: optimizer steps so far.

        Raises:
            SessionError: a parameter is sharded.
            PluginError: the algorithm failed, or returned something else than it has to.
        """
        pruner = self.algorithm
        if not isinstance(pruner, ObservesCurvature) or not self._is_observed_at(steps + 1):
            return
        curvature, reached = curvature_of(loss, self.bound_targets, steps)
        targets = [self.seen_as(bound) for bound in reached]
        parts = observe(pruner, curvature, targets)
        self._has_overflowed = self._has_overflowed or bool(targets and not parts)
        for bound, part in zip(reached if parts else (), parts, strict=True):
            add_sums(self.observed.setdefault(bound, {}), part)


def _known_target(bound: BoundTarget, values: Tensor) -> PruningTarget:
    return target_of(Ranked(bound, values, _known_blocks(bound)))


def _known_blocks(bound: BoundTarget) -> Blocks:
    if bound.plan.blocks is None:
        raise AttachError(
            f"{bound.plan.name}: {bound.plan.algorithm} works on parameters, whose blocks are "
            "known before a batch was seen; leave this target out",
            **bound.plan.place,
        )
    return bound.plan.blocks
