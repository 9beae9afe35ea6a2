"""One protocol for what compresses a model: every engine starts, steps, is saved and is undone.

A session loops over its engines, always in the order pruning, quantization, distillation, and
knows them only by what is here. What happens in which call:

==============  ==========================  ================================  ====================
call            pruning                     quantization                      distillation
==============  ==========================  ================================  ====================
`start`         learned tensors into the    the steps that quantize, and      taps into student
                modules, gradients heard    what is folded                    and teacher
`gaining`       of learned masks, masks     of learned scales, factors,       nothing
                of one element              scales of unknown shape
`observers`     inputs and outputs to rank  ranges of inputs and outputs,
                by, modules                 modules
`compress`      masks, solved weights       scales, solved weights            nothing
`step`          gradients and learned       ranges checked; stages that       projections moved
                masks moved, masks due      begin; learned scales moved
`losses`        penalties                   penalties                         losses of pairs
`look_at`       curvature                   nothing                           nothing
`hand_over`     learned masks               learned scales                    projections
`note`          masks, sums, learned        steps and buffers, learned        projections
`save`          masks, sums, values         scales, statistics, values        projections
`fixed_shapes`  masked inputs and outputs   inputs and outputs with scales    what is compared
                                            for each channel
`cut`           masks, sums, values;        scales, values                    nothing
                targets are frozen
`hold`          masked elements zeroed      nothing                           nothing
                if stages request it
`release`       these elements put back     nothing                           nothing
`stop`          gradients no longer heard   nothing                           taps emptied
`give_back`     solved weights              solved weights and biases         nothing
==============  ==========================  ================================  ====================

`give_back` goes through the engines in reverse, since the later ones changed what the earlier ones
had left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from tersely.contracts.kinds import Method
from tersely.document.recipe import Stage
from tersely.engine.context import Context
from tersely.engine.observation.observers import Observers
from tersely.engine.run import Run
from tersely.engine.state.cutting import Cut, FixedShapes, cut_saved, move_along
from tersely.engine.state.gathering import (
    check_learned_moments,
    check_names,
    check_originals,
    gather_originals,
    gather_runs,
    restore_observed,
    restore_originals,
)
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import (
    Grammar,
    Parts,
    Saved,
)
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.masks.holding import dense_values

AnyRun = TypeVar("AnyRun", bound="Run[Any]")


class Engine(ABC, Generic[AnyRun]):
    """All stages of one method in a session; mutable, because masks, scales and values change.

    Attributes:
        method: the method.
        grammar: how its saved tensors are named.
        context: what it shares with the session and the other engines.
        runs: the running stages.
        originals: target -> its values before an algorithm changed them.
        is_compressed: whether `compress` has put something in force.
        is_handed_over: whether the user's optimizer moves what is learned.
    """

    method: ClassVar[Method]
    grammar: ClassVar[Grammar]

    def __init__(self, context: Context, runs: tuple[AnyRun, ...] = ()) -> None:
        self.context = context
        self.runs = runs
        self.originals: dict[BoundTarget, Tensor] = {}
        self.is_compressed = False
        self.is_handed_over = False

    @cached_property
    def bound_targets(self) -> tuple[BoundTarget, ...]:
        """All targets of the method, in plan order; made when first asked for."""
        binding = self.context.binding
        if all(stage.method != self.method for stage in binding.plan.recipe.stages):
            return ()
        return tuple(one for one in binding.bound_targets if one.plan.method == self.method)

    @property
    def begun(self) -> tuple[AnyRun, ...]:
        """The stages whose period has begun."""
        return self.begun_at(self.context.steps)

    def begun_at(self, steps: int) -> tuple[AnyRun, ...]:
        """Return the stages whose period has begun after a number of optimizer steps."""
        return tuple(run for run in self.runs if run.stage.has_begun(steps))

    def beginning(self, steps: int) -> tuple[AnyRun, ...]:
        """Return the stages whose period begins with a step that is being made."""
        before = self.context.steps
        return tuple(run for run in self.runs if before < run.stage.begin <= steps)

    @property
    def is_in_force(self) -> bool:
        """Whether everything that has begun is in force."""
        return True

    @abstractmethod
    def start(self, steps: int) -> None:
        """Put what the stages that have begun need into the instrumented modules.

        Called once the model is instrumented, and when a saved state is restored.

        Args:
            steps: optimizer steps so far.
        """

    def gaining(self) -> Iterator[nn.Module]:
        """Yield the modules that get further entries after they were instrumented."""
        yield from ()

    def observers(self, runs: Sequence[AnyRun]) -> list[Observers]:
        """Return fresh observers of what some stages look at in calibration.

        Args:
            runs: the stages.
        """
        return []

    def outdate(self) -> None:  # most engines have nothing to do
        """Note that an earlier engine has changed what calibration showed."""

    def compress(self, journal: Journal) -> bool:
        """Decide for all stages that have begun, and put it in force.

        Args:
            journal: notes what changes.

        Returns:
            Whether what the engines after this one saw in calibration is outdated.
        """
        return False

    def need_to_step(self) -> None:  # most engines have nothing to do
        """Refuse an optimizer step before what it needs is in force.

        Raises:
            SessionError: something must be called first.
        """

    def need_to_finish(self, call: str) -> None:  # most engines have nothing to do
        """Refuse to finish while something is not in force.

        Args:
            call: the method that was called.

        Raises:
            SessionError: something must be called first.
        """

    @abstractmethod
    def step(self, steps: int, journal: Journal) -> bool:
        """Advance by one optimizer step.

        Args:
            steps: optimizer steps so far, that one counted; the context's clock follows later.
            journal: notes what changes.

        Returns:
            Whether masks changed.
        """

    def losses(self) -> list[Tensor]:
        """Return what the active stages add to the loss, 0-dim each."""
        return []

    def look_at(self, loss: Tensor) -> None:  # most engines have nothing to do
        """Observe the loss that the user is about to differentiate.

        Args:
            loss: 0-dim, what the active stages add included.
        """

    def forget(self) -> None:  # most engines have nothing to do
        """Forget the remains of the last forward pass."""

    @property
    def learning_stages(self) -> list[Stage]:
        """The stages that learn something, whether they have begun or not."""
        return [run.stage for run in self.runs if run.is_learning]

    def hand_over(self) -> list[Tensor]:
        """Return everything that is learned; from now on the user's optimizer moves it."""
        self.is_handed_over = True
        tensors: dict[int, Tensor] = {}
        for run in self.runs:
            tensors.update((id(leaf), leaf) for leaf in run.all_learned().values())
            run.optimizer = None
        return list(tensors.values())

    def learned(self) -> dict[tuple[str, str], Tensor]:
        """Return everything that is learned, by target and name."""
        found: dict[tuple[str, str], Tensor] = {}
        for run in self.runs:
            found.update(run.all_learned())
        return found

    def masks(self) -> Iterator[tuple[BoundTarget, Tensor]]:
        """Yield each target that has a mask, with its buffer."""
        yield from ()

    def qparams(self) -> list[tuple[BoundTarget, Any]]:
        """Return the scales and zero points in force, by target."""
        return []

    def integers(self) -> list[tuple[BoundTarget, Callable[[], Any]]]:
        """Return every quantized parameter and buffer with what computes its integers."""
        return []

    def remarks(self) -> list[str]:
        """Return what a report should say of what is in force, as sentences."""
        return []

    def growing(self, steps: int) -> tuple[int, ...]:
        """Return the stages, by index in the recipe, that have not reached their sparsity.

        Args:
            steps: optimizer steps so far.
        """
        return ()

    def note(self, journal: Journal, *, is_step: bool) -> None:
        """Note what `compress`, `restore` or a step in which a stage begins may change.

        Masks and values are noted when they are about to change, because they are large.

        Args:
            journal: takes the notes.
            is_step: whether it is a step, which moves what is learned as well.
        """
        journal.note_attributes(self, "originals", "is_compressed", "is_handed_over")
        for run in self.runs:
            run.note(journal, is_step=is_step)

    def change(self, bound: BoundTarget, values: Tensor, journal: Journal) -> None:
        """Write other raw values to a target; `give_back` restores the old ones.

        Args:
            bound: the target.
            values: the target's shape.
            journal: notes the previous values.
        """
        before = journal.note_values(bound)
        self.originals.setdefault(bound, dense_values(bound.module, bound.plan.target, before))
        bound.write(values)

    def hold(self) -> None:  # most engines have nothing to do
        """Mask in place what stages keep masked there; others may have written to it since."""

    @property
    def has_written(self) -> bool:
        """Whether parameters hold other values than the user's, which are given back at the end."""
        return bool(self.originals)

    def release(self) -> None:  # most engines have nothing to do
        """Restore the dense values of what is masked in place, before `give_back`."""

    def stop(self) -> None:  # most engines have nothing to do
        """Stop listening to the model."""

    def give_back(self) -> None:
        """Give targets the values they had before an algorithm changed them."""
        # The last change first: parameters may be views that overlap.
        for bound, values in reversed(self.originals.items()):
            bound.write(values)

    def fixed_shapes(self, saved: Saved) -> FixedShapes:
        """Return what has to keep its shape when the model is shrunk, and why.

        Args:
            saved: what `save` returned.
        """
        return {}

    def cut(self, saved: Saved, cuts: Mapping[str, Cut]) -> Saved:
        """Return a saved state as it is for the small model, which has been cut.

        Args:
            saved: what `save` returned before.
            cuts: parameter or buffer -> what stays of it.

        Raises:
            SessionError: something has a shape that does not follow its target's.
        """
        numbered = {
            bound.plan.name: bound.plan.blocks.index
            for run in self.runs
            for bound in run.all_bound_targets
            if bound.plan.blocks is not None and bound.plan.blocks.index is not None
        }
        found = cut_saved(saved, cuts, numbered=numbered)
        for bound in self.originals:
            move_along(found, bound.plan.name, ("value", "original"), bound.raw.detach())
        return found

    @abstractmethod
    def save(self) -> Saved:
        """Return everything that `restore` needs to continue bit for bit."""

    def gathered(self) -> Parts:
        """Return what all methods save: observations, what is learned, and changed values."""
        return {**gather_runs(self.runs), **gather_originals(self.originals)}

    def restore_gathered(self, saved: Saved, journal: Journal) -> None:
        """Put back observations and changed values; what is learned is each method's own.

        Args:
            saved: a checked state.
            journal: notes what changes.
        """
        restore_observed(self.runs, saved)
        restore_originals(self.originals, self.bound_targets, saved, journal)

    def known_names(self) -> set[str]:
        """Return the names that saved tensors can belong to: those of the targets."""
        return {bound.plan.name for bound in self.bound_targets}

    def check(self, saved: Saved, steps: int) -> None:
        """Check a saved state before anything is changed.

        Args:
            saved: what `save` returned.
            steps: optimizer steps at that time.

        Raises:
            SessionFileError: it belongs to another plan or model.
        """
        check_names(self.grammar, self.known_names(), saved)
        check_originals(self.bound_targets, saved)
        check_learned_moments(self.runs, saved)

    @abstractmethod
    def restore(self, saved: Saved, steps: int, journal: Journal) -> None:
        """Put a checked state in force.

        Args:
            saved: what `save` returned.
            steps: optimizer steps at that time.
            journal: notes what changes.
        """
