"""A running stage: its algorithm, and everything it has gathered and learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

import attrs
import torch
from torch import Tensor

from tersely.contracts.abilities import ObservesInputs, ObservesOutputs, Sequential
from tersely.document.recipe import Stage
from tersely.engine.observation.watch import Watch
from tersely.engine.optimizing import make_optimizer, step_optimizer
from tersely.engine.processes import is_equal_everywhere
from tersely.engine.state.journal import Journal
from tersely.engine.targets.binding import Binding, BoundTarget
from tersely.errors import SessionError

Algorithm = TypeVar("Algorithm")


@attrs.define(eq=False, slots=False)
class Run(ABC, Generic[Algorithm]):
    """A stage in a session; mutable because it gathers what its algorithm observes.

    What differs between methods is in a subclass: which targets the algorithm sees, and how.

    Attributes:
        number: index of the stage in the recipe.
        stage: the stage.
        algorithm: the algorithm, made with the stage's options.
        binding: the plan, bound to the model.
        observed: target -> sums of what the algorithm observed.
        optimizer: moves what is learned; None when nothing is, or the user's optimizer does.
        unranked: targets of which calibration showed nothing, so that their weights alone decided.
        warned_of: those that a warning has named.
    """

    number: int
    stage: Stage
    algorithm: Algorithm
    binding: Binding
    observed: dict[BoundTarget, dict[str, Tensor]] = attrs.field(factory=dict, kw_only=True)
    optimizer: torch.optim.Optimizer | None = attrs.field(default=None, kw_only=True)
    unranked: list[str] = attrs.field(factory=list, kw_only=True)
    warned_of: set[str] = attrs.field(factory=set, kw_only=True)

    @cached_property
    def all_bound_targets(self) -> tuple[BoundTarget, ...]:
        """All targets of the stage, in plan order."""
        return tuple(one for one in self.binding.bound_targets if one.plan.stage == self.number)

    @cached_property
    def bound_targets(self) -> tuple[BoundTarget, ...]:
        """The targets that the algorithm decides on, whose modules it may observe."""
        return self.all_bound_targets

    @cached_property
    def is_observing_modules(self) -> bool:
        """Whether the algorithm observes modules in calibration."""
        return isinstance(self.algorithm, (ObservesInputs, ObservesOutputs))

    @cached_property
    def is_sequential(self) -> bool:
        """Whether the algorithm wants to be calibrated block by block."""
        algorithm: object = self.algorithm
        is_chosen = isinstance(algorithm, Sequential) and algorithm.sequential
        return self.is_observing_modules and is_chosen

    @property
    def is_calibrated(self) -> bool:
        """Whether the stage looks at calibration batches."""
        return self.is_observing_modules

    @property
    def is_optional_calibration(self) -> bool:
        """Whether training provides the same if calibration never ran."""
        return False

    @property
    def is_looking_again(self) -> bool:
        """Whether every `compress` runs the calibration batches again."""
        return self.is_sequential

    @property
    def is_learning(self) -> bool:
        """Whether the algorithm learns something for each target."""
        return False

    def learned(self, bound: BoundTarget) -> Mapping[str, Tensor]:
        """Return what is learned for a target, by name."""
        return {}

    def all_learned(self) -> dict[tuple[str, str], Tensor]:
        """Return everything that is learned, by target and name, in plan order."""
        if not self.is_learning:
            return {}
        return {
            (bound.plan.name, name): leaf
            for bound in self.all_bound_targets
            for name, leaf in self.learned(bound).items()
        }

    @abstractmethod
    def seen_as(self, bound: BoundTarget) -> Any:
        """Return a target as the algorithm sees it while it observes the target's module."""

    def watches(self, bound_targets: Iterable[BoundTarget]) -> list[Watch]:
        """Return observers of the modules of some targets."""
        return [Watch(bound, self.algorithm, self.seen_as(bound)) for bound in bound_targets]

    def forget(self, bound_targets: Iterable[BoundTarget]) -> None:
        """Drop what was observed of some targets."""
        for bound in bound_targets:
            self.observed.pop(bound, None)

    def move_learned(self) -> None:
        """Make one step of what is learned, unless the user's optimizer does."""
        if self.optimizer is not None:
            step_optimizer(self.optimizer)

    def make_optimizer(self) -> None:
        """Make the optimizer of everything that is learned."""
        self.optimizer = make_optimizer(self.algorithm, self.all_learned())

    def need_the_same_everywhere(self, bound_targets: Iterable[BoundTarget]) -> None:
        """Refuse learned tensors that the user's optimizer let differ between processes.

        Args:
            bound_targets: targets of the stage, in the same order everywhere.

        Raises:
            SessionError: the processes have moved what is learned apart.
        """
        if self.optimizer is not None or not self.is_learning:
            return
        learned = {one: list(self.learned(one).values()) for one in bound_targets}
        if not is_equal_everywhere([leaf for leaves in learned.values() for leaf in leaves]):
            first = next(bound for bound, leaves in learned.items() if leaves).plan
            raise SessionError(
                f"what {first.algorithm} learned of {first.name} and others differs between the "
                "processes: your optimizer moves session.parameters(), whose gradients "
                "DistributedDataParallel does not average; average them before optimizer.step(), "
                "or leave them to session.step()",
                **first.place,
            )

    def note(self, journal: Journal, *, is_step: bool) -> None:
        """Note what a change may touch.

        Args:
            journal: takes the notes.
            is_step: whether an optimizer step is made, which moves what is learned as well.
        """
        journal.note_attributes(self, "observed", "optimizer")
        if is_step and self.optimizer is not None:
            journal.note_optimizer(self.optimizer)
