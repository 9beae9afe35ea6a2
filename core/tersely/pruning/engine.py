"""The pruning of a session: its stages, what they decided, and how to undo it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from tersely.calibration.calibrate import observe_again
from tersely.calibration.module_observers import module_observers
from tersely.calibration.sequential import compress_in_sequence
from tersely.calibration.statistic import (
    Statistic,
    StatisticObservers,
    sample_shape,
    statistic_for,
)
from tersely.contracts.regrowing import RegrowsFromZero
from tersely.contracts.settings import Budget
from tersely.contracts.whole_model import ScoresModel, WholeModel
from tersely.document.recipe import Stage
from tersely.engine.clock import progress_at
from tersely.engine.context import Context
from tersely.engine.finite import need_finite
from tersely.engine.observation.observers import Observers
from tersely.engine.protocol import Engine
from tersely.engine.state.cutting import Cut, FixedShapes, place_of
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import Saved, restore_moments
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.unranked import warn_of_unranked
from tersely.errors import SessionError, SessionFileError
from tersely.instrument.masks.holding import HeldWeight
from tersely.instrument.masks.mask_values import need_whole
from tersely.masking.counted import Removal
from tersely.pruning.alignment import of_these_alone, with_followers
from tersely.pruning.deciding import Decision, decide
from tersely.pruning.editing import check_groups, checked_masks, named_targets, need_masks_to_freeze
from tersely.pruning.holding import hold, place_holds, release, zero_what_comes_back
from tersely.pruning.learned_masks import restore_learned
from tersely.pruning.mask_buffers import (
    mask_of,
    modules_of_one_element,
    place_masks,
    remove_mask,
)
from tersely.pruning.mask_writing import note_masks, write_mask, write_masks
from tersely.pruning.ordering import check_saved_order, described_orders
from tersely.pruning.run import PruningRun
from tersely.pruning.starting import start_runs
from tersely.pruning.state import (
    GRAMMAR,
    MASK,
    ORDER,
    check_dense,
    check_mask,
    describe_statistics,
    gather_dense,
    gather_masks,
    gather_orders,
    gather_statistics,
    restore_dense,
    restored_statistics,
    spread_dense,
)
from tersely.pruning.whole_model import whole_model


class Pruning(Engine[PruningRun]):
    """All pruning stages of a session; mutable because masks, values and observations change.

    Attributes:
        statistics: what calibration saw of inputs and outputs.
        frozen: targets whose masks no algorithm changes any more.
        orders: the order of input channels in which a target's granularity holds, where it is not
            their own.
        holds: what keeps the dense values of each target that is masked in place.
    """

    method = "pruning"
    grammar = GRAMMAR

    def __init__(self, context: Context) -> None:
        super().__init__(context, start_runs(context.binding))
        self.statistics: dict[BoundTarget, Statistic] = {}
        self.frozen: set[BoundTarget] = set()
        self.orders: dict[BoundTarget, Tensor] = {}
        self.holds: dict[BoundTarget, HeldWeight] = {}

    @property
    def _stages(self) -> Sequence[Stage]:
        return self.context.binding.plan.recipe.stages

    def start(self, steps: int) -> None:
        """Let algorithms put into the modules what they learn, and listen to gradients."""
        place_masks(self.context.binding, self.context.model)
        if not self.holds:
            self.holds = place_holds(self.runs)
        for run in self.begun_at(steps):
            run.start()
            run.await_step(steps)

    def gaining(self) -> Iterator[nn.Module]:
        """Yield modules with masks of one element, which fit any place, and what is learned."""
        for run in self.runs:
            if run.is_learning:
                yield from (one for bound in run.all_bound_targets for one, _ in bound.owners)
            else:
                yield from modules_of_one_element(self.context.binding, run.number)

    def hold(self) -> None:
        """Zero the masked elements of parameters of stages with ``hold: step``."""
        hold(self.holds)

    @property
    def has_written(self) -> bool:
        """Whether parameters hold other values than the user's, which are given back at the end."""
        return super().has_written or bool(self.holds)

    def release(self) -> None:
        """Give these elements back their dense values."""
        release(self.holds)

    def stop(self) -> None:
        """Stop listening to the model."""
        for run in self.runs:
            run.stop()

    def observers(self, runs: Sequence[PruningRun]) -> list[Observers]:
        """Return fresh observers of the inputs, outputs and modules that some stages rank by."""
        statistics = {
            bound: statistic_for(bound, self._stages)
            for run in runs
            for bound in run.all_bound_targets
            if bound.is_activation
        }
        return [StatisticObservers(statistics, self.statistics), *module_observers(runs)]

    def compress(self, journal: Journal) -> bool:
        """Compute all masks and put them in force."""
        steps, was_compressed = self.context.steps, self.is_compressed
        # A stage whose period is over has made its last decision.
        runs = [
            run for run in self.begun if run.stage.is_running(steps) or not self._has_masks(run)
        ]
        self._renew(runs, steps, journal, is_partial=len(runs) < len(self.runs))
        self.is_compressed = True
        return bool(self.runs) and not was_compressed

    def _renew(
        self, runs: Sequence[PruningRun], steps: int, journal: Journal, *, is_partial: bool
    ) -> None:
        need_finite(one for run in runs for one in run.all_bound_targets)
        decision = Decision()
        for run in runs:
            if run.is_sequential and run.factor(steps):
                self._compress_in_sequence(run, steps, journal)
            else:
                found = self._decide(run, steps, run.bound_targets)
                decision.kept.update(found.kept)
                decision.values.update(found.values)
                decision.from_zero.update(found.from_zero)
                decision.orders.update(found.orders)
        self._apply(decision, journal, is_partial=is_partial)
        for run in runs:
            journal.note_attributes(run, "observed")
            run.start_over()
        warn_of_unranked(runs, "ranked by the magnitude of their weights")

    def _compress_in_sequence(self, run: PruningRun, steps: int, journal: Journal) -> None:
        batches = self.context.batches
        if batches is None:
            first = next((one.plan for one in run.bound_targets), None)
            name = first.name if first else run.stage.path
            raise SessionError(
                f"{name} is compressed block by block on calibration batches; call "
                "session.calibrate(batches) before session.compress(), and again in a session "
                "that was loaded, since batches are not saved with it",
                target=first.name if first else None,
                path=first.origin.path if first else run.stage.path,
                algorithm=run.stage.algorithm,
            )

        def compress(bound_targets: Sequence[BoundTarget]) -> None:
            self._apply(self._decide(run, steps, bound_targets), journal, is_partial=True)

        compress_in_sequence(run, self.context.model, batches, compress=compress)

    def step(self, steps: int, journal: Journal) -> bool:
        """Advance by one optimizer step and tell whether masks changed."""
        self.hold()
        for run in self.runs:
            if run.stage.is_running(self.context.steps):
                run.observe_step(steps)
                run.move_learned()
        beginning = self.beginning(steps)
        due = [
            run
            for run in self.runs
            if run in beginning or (run.is_due(steps) and not run.put_off())
        ]
        for run in beginning:
            run.start()
        if beginning:
            observe_again(self.context, self.observers(beginning))
        if due:
            self._renew(due, steps, journal, is_partial=True)
            journal.note_attributes(self, "is_compressed")
            self.is_compressed = self.is_compressed or self._is_masked(steps)
        for run in self.begun_at(steps):
            run.await_step(steps)
        return bool(due)

    def growing(self, steps: int) -> tuple[int, ...]:
        """Return the stages, by index in the recipe, that have not reached their sparsity."""
        return tuple(run.number for run in self.runs if run.factor(steps) < 1)

    @property
    def is_in_force(self) -> bool:
        """Whether masks were computed and every target has one whose stage has begun."""
        return self.is_compressed and self._is_masked(self.context.steps)

    def _is_masked(self, steps: int) -> bool:
        return all(self._has_masks(run) for run in self.begun_at(steps))

    def _has_masks(self, run: PruningRun) -> bool:
        return all(mask_of(one) is not None for one in run.all_bound_targets)

    def masks(self) -> Iterator[tuple[BoundTarget, Tensor]]:
        """Yield each target that has a mask, with its buffer."""
        for bound in self.bound_targets:
            mask = mask_of(bound)
            if mask is not None:
                yield bound, mask

    def need_to_finish(self, call: str) -> None:
        """Refuse to finish without masks, or with masks that were averaged."""
        self._need_masks(
            f"{call}() found nothing in force; call session.compress() first, or "
            "session.detach() to get the dense model back"
        )
        self._need_whole_masks()

    def _need_whole_masks(self) -> None:
        for bound, mask in self.masks():
            offset = float(bound.plan.pruning.mask_value) if bound.is_additive else None
            need_whole(mask, bound.plan.name, offset=offset)

    def need_to_step(self) -> None:
        """Refuse to step without masks, unless an algorithm gathers what masks will need."""
        if not any(run.is_trained for run in self.begun):
            self._need_masks(
                "step() found no masks in force; call session.compress() before the training loop"
            )

    def _need_masks(self, message: str) -> None:
        if not self.runs or self.is_compressed:
            return
        # A checkpoint of a compressed model may have brought the masks.
        if not self.bound_targets or not self._is_masked(self.context.steps):
            raise SessionError(message)
        self.is_compressed = True

    def losses(self) -> list[Tensor]:
        """Return the penalties of the active stages."""
        found = [run.penalty(self.context.steps) for run in self.runs]
        return [one for one in found if one is not None]

    def remarks(self) -> list[str]:
        """Return which weights have their granularity only in another order of inputs."""
        return described_orders(self.orders)

    def look_at(self, loss: Tensor) -> None:
        """Let algorithms that need second derivatives see the loss."""
        if loss.requires_grad:
            for run in self.runs:
                if run.stage.is_running(self.context.steps):
                    run.observe_loss(loss, self.context.steps)

    def note(self, journal: Journal, *, is_step: bool) -> None:
        """Note what a change may touch; masks and values are noted when they change."""
        super().note(journal, is_step=is_step)
        journal.note_attributes(self, "frozen", "statistics", "orders")

    def set_masks(
        self, masks: Mapping[str, Mapping[str, Tensor]], journal: Journal, *, is_frozen: bool
    ) -> None:
        """Put the user's masks in force, and after them those that follow.

        Args:
            masks: module -> target -> bool, True = kept.
            journal: notes what changes.
            is_frozen: whether algorithms leave these targets alone from now on.
        """
        decided = checked_masks(masks, self.bound_targets, partial(sample_shape, self.statistics))
        if is_frozen:
            check_groups(self.frozen.union(decided), self.bound_targets)
        need_finite(of_these_alone(self.bound_targets, decided))
        self._apply(Decision(decided), journal, is_partial=True)
        if is_frozen:
            self.frozen.update(decided)
        self.is_compressed = self._is_masked(self.context.steps)

    def freeze(self, targets: Iterable[str] | None) -> None:
        """Let algorithms leave the masks of targets as they are.

        Args:
            targets: their full names, or None for all.
        """
        chosen = named_targets(targets, self.bound_targets)
        need_masks_to_freeze(chosen)
        check_groups(self.frozen.union(chosen), self.bound_targets)
        self.frozen.update(chosen)

    def unfreeze(self, targets: Iterable[str] | None) -> None:
        """Let algorithms decide on targets again.

        Args:
            targets: their full names, or None for all.
        """
        left = self.frozen.difference(named_targets(targets, self.bound_targets))
        check_groups(left, self.bound_targets)
        self.frozen = left

    def save(self) -> Saved:
        """Return masks, what was observed and learned, and changed values.

        Raises:
            SessionFileError: a mask was averaged.
        """
        self._need_whole_masks()
        parts = {
            **self.gathered(),
            **gather_masks(self.masks(), self.holds),
            **gather_statistics(self.statistics),
            **gather_orders(self.orders),
        }
        data = {
            "is_compressed": self.is_compressed,
            "handed_over": self.is_handed_over,
            "frozen": sorted(bound.plan.name for bound in self.frozen),
            "seen": describe_statistics(self.statistics),
            "late": [run.number for run in self.runs if run.is_late],
        }
        return Saved(parts, data)

    def fixed_shapes(self, saved: Saved) -> FixedShapes:
        """Keep the shape of what has a mask of its own besides the parameters."""
        return {
            place_of(bound): f"{bound.plan.name} has a mask"
            for bound in self.bound_targets
            if bound.is_activation
        }

    def cut(self, saved: Saved, cuts: Mapping[str, Cut]) -> Saved:
        """Cut masks and sums; no algorithm prunes what is left again."""
        saved = Saved({**saved.parts, **spread_dense(self.holds)}, saved.data)
        # Without some of its inputs, a weight has no pattern in any order.
        for name in cuts:
            saved.parts.pop((ORDER, name), None)
        found = super().cut(saved, cuts)
        gather_dense(found)
        # Stages that have just begun have masks, which keep everything so far.
        growing = self.growing(self.context.steps)
        found.data["frozen"] = sorted(
            bound.plan.name
            for bound, _ in self.masks()
            if bound in self.frozen or bound.plan.stage not in growing
        )
        return found

    def check(self, saved: Saved, steps: int) -> None:
        """Check a saved state before anything is changed."""
        super().check(saved, steps)
        restored_statistics(self.bound_targets, self._stages, saved)
        # Before the first update of a schedule the shape of an input or output is not known.
        growing = {run.number for run in self.runs if not run.factor(steps)}
        for bound in self.bound_targets:
            kept = saved.one(MASK, bound.plan.name)
            if kept is not None:
                check_mask(bound, kept)
                check_dense(bound, kept, saved)
                order = saved.one(ORDER, bound.plan.name)
                if order is not None:
                    check_saved_order(bound, order)
            elif saved.data["is_compressed"] and bound.plan.stage not in growing:
                raise SessionFileError(
                    f"the saved session lacks the mask of {bound.plan.name}", target=bound.plan.name
                )

    def restore(self, saved: Saved, steps: int, journal: Journal) -> None:
        """Put a checked state in force."""
        for run in self.runs:
            run.is_late = run.number in saved.data.get("late", ())
        self.start(steps)
        journal.after_undo(self.hold)
        self.release()
        self.restore_gathered(saved, journal)
        for bound in self.bound_targets:
            self._restore_mask(bound, saved, journal)
        journal.on_undo(self.release)
        self.hold()
        restore_dense(self.holds, saved, journal)
        self.statistics = restored_statistics(self.bound_targets, self._stages, saved)
        frozen = set(saved.data["frozen"])
        self.frozen = {bound for bound in self.bound_targets if bound.plan.name in frozen}
        self.orders = {
            bound: order.to(bound.raw.device)
            for bound in self.bound_targets
            if (order := saved.one(ORDER, bound.plan.name)) is not None
        }
        for run in self.runs:
            for bound in run.bound_targets:
                restore_learned(bound, run.learned(bound), saved, journal)
            restore_moments(run.optimizer, run.all_learned(), saved)
        self.is_compressed = bool(saved.data["is_compressed"])
        if saved.data["handed_over"]:
            self.hand_over()

    def _restore_mask(self, bound: BoundTarget, saved: Saved, journal: Journal) -> None:
        # A function of its own, so that nothing keeps this mask while the next one is unpacked.
        note_masks((bound,), journal)
        kept = saved.one(MASK, bound.plan.name)
        if kept is None:
            remove_mask(bound, self.context.model)
        else:
            write_mask(bound, kept, self.context.model)

    def _decide(
        self, run: PruningRun, steps: int, bound_targets: Sequence[BoundTarget]
    ) -> Decision:
        free = [bound for bound in bound_targets if bound not in self.frozen]
        if run.factor(steps):
            run.need_gradients(free)
        held = self._held_of(free)
        # Ranked by their dense values, masked elements can come back.
        release(held)
        try:
            count = None if self.context.count is None else self._removal
            with self._showing_whole_model(run) as whole:
                found = decide(
                    run,
                    self.statistics,
                    run.factor(steps),
                    bound_targets=free,
                    count=count,
                    whole=whole,
                    progress=progress_at(run.curve, steps),
                )
        finally:
            hold(held)
        if isinstance(run.algorithm, RegrowsFromZero) and run.algorithm.from_zero:
            found.from_zero.update(found.kept)
        return found

    @contextlib.contextmanager
    def _showing_whole_model(self, run: PruningRun) -> Iterator[WholeModel | None]:
        if not isinstance(run.algorithm, ScoresModel):
            yield None
            return
        with contextlib.ExitStack() as stack:
            for other in self.runs:
                stack.enter_context(other.gradients.resting())
            yield whole_model(self.context, run.stage.algorithm)

    def _removal(self, budget: Budget, decided: Mapping[BoundTarget, Tensor]) -> Removal:
        assert self.context.count is not None  # asked for only where there is one
        masks = of_these_alone(self.bound_targets, decided)
        kept = {
            bound.plan.name: (mask != 0).expand(bound.raw.shape)
            for bound, mask in masks.items()
            if not bound.is_activation
        }
        return self.context.count(budget, kept)

    def _held_of(self, bound_targets: Iterable[BoundTarget]) -> dict[BoundTarget, HeldWeight]:
        return {one: self.holds[one] for one in bound_targets if one in self.holds}

    def _apply(self, decision: Decision, journal: Journal, *, is_partial: bool) -> None:
        whole = with_followers(self.bound_targets, decision.kept, is_partial=is_partial)
        held = self._held_of([*whole, *decision.values])
        journal.after_undo(partial(hold, held))
        release(held)
        for bound in decision.from_zero:
            zero_what_comes_back(bound, whole[bound], journal)
        note_masks(whole, journal)
        write_masks(whole, self.context.model)
        journal.note_attributes(self, "originals", "orders")
        for bound in decision.kept:
            self.orders.pop(bound, None)
        self.orders.update(decision.orders)
        for bound, values in decision.values.items():
            self.change(bound, values, journal)
        journal.on_undo(partial(release, held))
        hold(held)
