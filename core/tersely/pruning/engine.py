"""The pruning of a session: its stages, what they decided, and how to take it back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from tersely.calibration.calibrate import observe_again
from tersely.calibration.sequential import compress_in_sequence
from tersely.calibration.statistic import Statistic, sample_shape, statistic_for
from tersely.calibration.watching import Watch
from tersely.engine.batches import Batches
from tersely.engine.binding import Binding, Handle
from tersely.errors import SessionError
from tersely.planning.plan import Plan
from tersely.pruning.alignment import with_followers
from tersely.pruning.deciding import Decision, decide
from tersely.pruning.editing import check_groups, checked_masks, named_handles, need_masks_to_freeze
from tersely.pruning.journal import Journal
from tersely.pruning.mask_buffers import mask_of, write_mask
from tersely.pruning.run import PruningRun
from tersely.pruning.starting import start_runs


class Pruning:
    """All pruning stages of a session; mutable because masks, values and observations change.

    Attributes:
        runs: the stages.
        statistics: what calibration saw of inputs and outputs.
        is_compressed: whether masks are in force.
        originals: target -> its values before an algorithm changed them.
        frozen: targets whose masks no algorithm changes any more.
        is_handed_over: whether the user's optimizer moves what is learned.
        batches: the calibration batches, where masks need them again.
        steps: optimizer steps so far.
    """

    def __init__(self, plan: Plan, model: nn.Module, binding: Binding) -> None:
        self.plan = plan
        self.model = model
        self.binding = binding
        self.runs: tuple[PruningRun, ...] = start_runs(plan, binding)
        self.statistics: dict[Handle, Statistic] = {}
        self.is_compressed = False
        self.originals: dict[Handle, Tensor] = {}
        self.frozen: set[Handle] = set()
        self.is_handed_over = False
        self.batches: Batches | None = None
        self.steps = 0
        self._handles = tuple(one for one in binding.handles if one.plan.method == "pruning")

    @property
    def handles(self) -> tuple[Handle, ...]:
        """All pruning targets of the plan, in its order."""
        return self._handles

    def start(self) -> None:
        """Let algorithms put into the modules what they learn; called once they are attached."""
        for run in self.begun:
            run.start()

    def move_to(self, steps: int) -> None:
        """Go to a saved session's step, at which further stages have begun.

        Args:
            steps: optimizer steps so far.
        """
        self.steps = steps
        self.start()

    def stop(self) -> None:
        """Stop listening to the model."""
        for run in self.runs:
            run.stop()

    @property
    def begun(self) -> tuple[PruningRun, ...]:
        """The stages whose period has begun."""
        return tuple(run for run in self.runs if run.stage.has_begun(self.steps))

    def new_statistics(self, runs: Sequence[PruningRun]) -> dict[Handle, Statistic]:
        """Return empty statistics for every input and output of some stages."""
        numbers = {run.number for run in runs}
        return {
            handle: statistic_for(handle, self.plan.recipe.stages)
            for handle in self.handles
            if handle.is_activation and handle.plan.stage in numbers
        }

    def watches(self, runs: Sequence[PruningRun]) -> list[tuple[PruningRun, list[Watch]]]:
        """Return observers of modules for those stages that are not calibrated block by block."""
        return [
            (run, run.watches(run.handles))
            for run in runs
            if run.is_observing_modules and not run.is_sequential
        ]

    @property
    def is_keeping_batches(self) -> bool:
        """Whether calibration batches are needed again in compress."""
        return any(run.is_sequential for run in self.begun)

    def compress(self, steps: int) -> None:
        """Compute all masks and put them in force; after an error everything is as it was.

        Args:
            steps: optimizer steps so far.
        """
        # A stage whose period is over has decided for good.
        runs = [
            run for run in self.begun if run.stage.is_running(steps) or not self._has_masks(run)
        ]
        self._renew(runs, steps, is_partial=len(runs) < len(self.runs))
        self.is_compressed = True

    def _renew(self, runs: Sequence[PruningRun], steps: int, *, is_partial: bool = False) -> None:
        journal = Journal()
        try:
            decision = Decision()
            for run in runs:
                if run.is_sequential and run.factor(steps):
                    self._compress_in_sequence(run, steps, journal)
                else:
                    found = self._decide(run, steps, run.handles)
                    decision.kept.update(found.kept)
                    decision.values.update(found.values)
            self._apply(decision, journal, is_partial=is_partial)
        except BaseException:
            journal.undo(self.model)
            raise
        for run in runs:
            run.start_over()

    def _compress_in_sequence(self, run: PruningRun, steps: int, journal: Journal) -> None:
        if self.batches is None:
            name = run.handles[0].plan.name if run.handles else "the stage"
            raise SessionError(
                f"{name} is compressed block by block on calibration batches; call "
                f"session.calibrate(batches) before session.compress(), and again in a session "
                f"that was loaded, since batches are not saved with it"
            )

        def compress(handles: Sequence[Handle]) -> None:
            self._apply(self._decide(run, steps, handles), journal, is_partial=True)

        compress_in_sequence(run, self.model, self.batches, compress=compress)

    def step(self, steps: int) -> bool:
        """Advance by one optimizer step and tell whether masks changed.

        Args:
            steps: optimizer steps so far, that one counted.
        """
        for run in self.runs:
            if run.stage.is_running(self.steps):
                run.observe_step()
                run.step_learned()
        beginning = [run for run in self.runs if self.steps < run.stage.begin <= steps]
        due = [run for run in self.runs if run in beginning or run.is_due(steps)]
        for run in beginning:
            run.start()
        if beginning and self.batches is not None:
            observe_again(self, beginning, self.batches)
        if due:
            self._renew(due, steps, is_partial=True)
        self.steps = steps
        self.is_compressed = self.is_compressed or bool(due and self.is_masked())
        return bool(due)

    def growing(self, steps: int) -> tuple[int, ...]:
        """Return the stages, by index in the recipe, that have not reached their sparsity.

        Args:
            steps: optimizer steps so far.
        """
        return tuple(run.number for run in self.runs if run.factor(steps) < 1)

    def is_masked(self) -> bool:
        """Tell whether every target has a mask whose stage has begun."""
        return all(self._has_masks(run) for run in self.begun)

    def _has_masks(self, run: PruningRun) -> bool:
        targets = (one for one in self.handles if one.plan.stage == run.number)
        return all(mask_of(one) is not None for one in targets)

    def need_masks(self, message: str) -> None:
        """Refuse a call that needs masks in force.

        Args:
            message: what to tell the user.

        Raises:
            SessionError: there are pruning stages and no masks.
        """
        if not self.runs or self.is_compressed:
            return
        # A checkpoint of a compressed model may have brought the masks.
        if not self.handles or not self.is_masked():
            raise SessionError(message)
        self.is_compressed = True

    def need_masks_to_step(self) -> None:
        """Refuse to step without masks, unless an algorithm gathers what masks will need.

        Raises:
            SessionError: there are no masks, and no stage needs steps to get them.
        """
        if not any(run.is_trained for run in self.begun):
            self.need_masks(
                "step() found no masks in force; call session.compress() before the training loop"
            )

    def penalty(self, steps: int) -> list[Tensor]:
        """Return what the stages add to the loss.

        Args:
            steps: optimizer steps so far.
        """
        found = [run.penalty(steps) for run in self.runs]
        return [one for one in found if one is not None]

    def hand_over(self) -> list[Tensor]:
        """Return everything that is learned; from now on the user's optimizer moves it."""
        self.is_handed_over = True
        tensors: dict[int, Tensor] = {}
        for run in self.runs:
            if not run.is_trained:
                continue
            for handle in run.handles:
                tensors.update({id(one): one for one in run.learned(handle).values()})
            run.optimizer = None
        return list(tensors.values())

    def set_masks(self, masks: Mapping[str, Mapping[str, Tensor]], *, is_frozen: bool) -> None:
        """Put the user's masks in force, and after them those that follow.

        Args:
            masks: module -> target -> bool, True = kept.
            is_frozen: whether algorithms leave these targets alone from now on.
        """
        decided = checked_masks(masks, self.handles, partial(sample_shape, self.statistics))
        if is_frozen:
            check_groups(self.frozen.union(decided), self.handles)
        self._apply(Decision(decided), Journal(), is_partial=True)
        if is_frozen:
            self.frozen.update(decided)
        self.is_compressed = self.is_masked()

    def freeze(self, targets: Iterable[str] | None) -> None:
        """Let algorithms leave the masks of targets as they are.

        Args:
            targets: their full names, or None for all.
        """
        chosen = named_handles(targets, self.handles)
        need_masks_to_freeze(chosen)
        check_groups(self.frozen.union(chosen), self.handles)
        self.frozen.update(chosen)

    def unfreeze(self, targets: Iterable[str] | None) -> None:
        """Let algorithms decide on targets again.

        Args:
            targets: their full names, or None for all.
        """
        left = self.frozen.difference(named_handles(targets, self.handles))
        check_groups(left, self.handles)
        self.frozen = left

    def give_back(self) -> None:
        """Give targets the values they had before an algorithm changed them."""
        for handle, values in self.originals.items():
            handle.write(values)

    def _decide(self, run: PruningRun, steps: int, handles: Sequence[Handle]) -> Decision:
        free = [handle for handle in handles if handle not in self.frozen]
        return decide(run, self.statistics, run.factor(steps), handles=free)

    def _apply(self, decision: Decision, journal: Journal, *, is_partial: bool = False) -> None:
        whole = with_followers(self.handles, decision.kept, is_partial=is_partial)
        journal.note(whole, decision.values)
        for handle, kept in whole.items():
            write_mask(handle, kept, self.model)
        for handle, values in decision.values.items():
            self.originals.setdefault(handle, journal.values[handle])
            handle.write(values)
