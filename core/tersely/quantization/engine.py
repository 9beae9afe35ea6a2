"""The quantization of a session: from observed ranges to scales in force, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.calibration.sequential import compress_in_sequence
from tersely.calibration.watching import Watch
from tersely.contracts.quantizer import ChangesAfterStep
from tersely.engine.batches import Batches
from tersely.engine.binding import Binding, Handle
from tersely.engine.optimizing import step_optimizer
from tersely.errors import SessionError
from tersely.instrument.in_force import qparams_of
from tersely.instrument.moving_range import check_followed, end_step
from tersely.quantization.again import see_again, watch_again
from tersely.quantization.folds import begin_folds
from tersely.quantization.integers import IntegerTensor, integers_of
from tersely.quantization.journal import Journal, restore_bias
from tersely.quantization.learned_scales import adopt_learned, need_the_same_everywhere
from tersely.quantization.placing import learned_of, place_learned, read_buffer
from tersely.quantization.ranges import Seen
from tersely.quantization.run import QuantizationRun, start_runs
from tersely.quantization.solving import quantize_parameters, quantize_seen
from tersely.quantization.steps import put_steps
from tersely.quantization.targets import target_of


class Quantization:
    """All quantization stages of a session; mutable because scales and observations change.

    Attributes:
        runs: the stages.
        seen: what calibration saw of inputs and outputs.
        originals: target -> its values before an algorithm changed them.
        biases: weight -> the bias beside it before it was corrected.
        is_compressed: whether scales are in force.
        is_handed_over: whether the user's optimizer moves what is learned.
        steps: optimizer steps so far.
        batches: the calibration batches, where scales need them again.
        is_outdated: whether masks came in force after calibration.
        has_kept_batches: whether calibration kept its batches, here or before the session was
            saved.
    """

    def __init__(self, binding: Binding, model: nn.Module) -> None:
        self.binding = binding
        self.model = model
        self.runs: tuple[QuantizationRun, ...] = start_runs(binding)
        self.seen: dict[Handle, Seen] = {}
        self.originals: dict[Handle, Tensor] = {}
        self.biases: dict[Handle, Tensor] = {}
        self.is_compressed = False
        self.is_handed_over = False
        self.steps = 0
        self.batches: Batches | None = None
        self.is_outdated = False
        self.has_kept_batches = False

    @property
    def handles(self) -> tuple[Handle, ...]:
        """All quantization targets, in plan order."""
        return tuple(one for run in self.runs for one in run.all_handles)

    def start(self) -> None:
        """Put the steps that quantize into the instrumented modules."""
        self._install(self.begun)

    def _install(self, runs: Sequence[QuantizationRun]) -> None:
        for run in runs:
            begin_folds(self.binding, run.stage)
            put_steps(run, self.handles, steps=self.steps)

    @property
    def begun(self) -> tuple[QuantizationRun, ...]:
        """The stages whose period has begun."""
        return tuple(run for run in self.runs if run.stage.has_begun(self.steps))

    def seers(self, runs: Sequence[QuantizationRun]) -> list[Seen]:
        """Return fresh observers of the inputs and outputs that have one scale for all calls."""
        return [
            Seen(handle, run.quantize_step(handle).cut, run.observer(handle))
            for run in runs
            for handle in run.activations
        ]

    def modules(self) -> list[nn.Module]:
        """Return every module with a quantized target, holders of tied parameters included."""
        return [module for handle in self.handles for module, _ in handle.owners]

    def watches(self, runs: Sequence[QuantizationRun]) -> list[tuple[QuantizationRun, list[Watch]]]:
        """Return observers of modules for those stages that are not calibrated block by block."""
        return [
            (run, run.watches(run.handles))
            for run in runs
            if run.is_observing_modules and not run.is_sequential
        ]

    @property
    def is_keeping_batches(self) -> bool:
        """Whether calibration batches are needed again in compress."""
        return any(run.is_sequential or run.is_equalizing for run in self.begun)

    def compress(self) -> None:
        """Choose all scales and put them in force; after an error everything is as it was."""
        journal = Journal(self)
        try:
            self._choose(self.begun, journal, is_changed=self.is_outdated, is_seen=bool(self.seen))
        except BaseException:
            journal.undo()
            raise
        self.is_compressed = True
        self.is_outdated = False

    def _begin(self, runs: Sequence[QuantizationRun], steps: int) -> None:
        journal, before = Journal(self), self.steps
        has_batches = self.batches is not None
        self.steps = steps
        try:
            self._install(runs)
            self._choose(runs, journal, is_changed=has_batches, is_seen=has_batches)
        except BaseException:
            journal.undo()
            self.steps = before
            raise

    def _choose(
        self,
        runs: Sequence[QuantizationRun],
        journal: Journal,
        *,
        is_changed: bool,
        is_seen: bool,
    ) -> None:
        if is_changed and self.batches is not None:
            watch_again(self, runs, self.batches)
        for run in runs:
            matrices = set(run.handles)
            if run.is_sequential:
                self._in_sequence(run, journal)
            else:
                quantize_parameters(self, run, run.handles, journal)
            vectors = [one for one in run.parameters if one not in matrices]
            quantize_parameters(self, run, vectors, journal)
            # Other weights, or divided inputs: the ranges of before are not those of now.
            is_changed = is_changed or run.is_equalizing or run.is_sequential
        if is_changed and is_seen:
            see_again(self, runs)
        for run in runs:
            quantize_seen(self, run)
            self._learn(run)

    def _in_sequence(self, run: QuantizationRun, journal: Journal) -> None:
        if not run.handles:
            return
        if self.batches is None:
            raise SessionError(
                f"{run.handles[0].plan.name} is quantized block by block on calibration "
                f"batches; call session.calibrate(batches) before session.compress()"
            )

        def compress(handles: Sequence[Handle]) -> None:
            quantize_parameters(self, run, handles, journal)

        compress_in_sequence(run, self.model, self.batches, compress=compress)

    def _learn(self, run: QuantizationRun) -> None:
        tensors = [
            leaf
            for handle in (*run.parameters, *run.activations)
            for leaf in place_learned(run, handle, self.seen.get(handle))
        ]
        if tensors and not self.is_handed_over:
            run.make_optimizer(tensors)

    def step(self, steps: int) -> None:
        """Advance by one optimizer step.

        Args:
            steps: optimizer steps so far, that one counted.

        Raises:
            CalibrationError: a range that training moved is not finite.
            SessionError: the processes have moved what is learned apart.
        """
        before, begun = self.steps, self.begun
        for run in begun:
            for handle in (*run.parameters, *run.activations) if run.following() else ():
                check_followed(handle.module, handle.plan.target, handle.plan.name)
                for module, attribute in handle.owners:
                    end_step(module, attribute)
        # First what can fail: nothing is moved then that a second try would move again.
        beginning = [run for run in self.runs if before < run.stage.begin <= steps]
        if beginning:
            self._begin(beginning, steps)
        for run in begun:
            if not self.is_handed_over:
                adopt_learned(run)
            if run.optimizer is not None:
                step_optimizer(run.optimizer)
            elif run.is_learning:
                need_the_same_everywhere(run)
            if isinstance(run.quantizer, ChangesAfterStep):
                for handle in run.parameters:
                    with torch.no_grad():
                        run.quantizer.after_step(handle.raw, target_of(handle, run.grid(handle)))
        self._turn(before, steps)

    def move_to(self, steps: int) -> None:
        """Go to a saved session's step, at which further stages have begun.

        Args:
            steps: optimizer steps so far.
        """
        before, self.steps = self.steps, steps
        self._install([run for run in self.begun if run.stage.begin > before])
        self._turn(before, steps)

    def _turn(self, before: int, steps: int) -> None:
        """Let quantization start, or ranges freeze, when their step has come."""
        self.steps = steps
        for run in self.runs:
            following = run.following()
            if following is None:
                continue
            turns = (following.start_step, following.freeze_step)
            begin = run.stage.begin
            if any(turn is not None and before < begin + turn <= steps for turn in turns):
                put_steps(run, self.handles, steps=steps)

    def learned(self) -> dict[Handle, dict[str, Tensor]]:
        """Return what is learned, by target and name."""
        learning = [run for run in self.runs if run.is_learning]
        handles = [one for run in learning for one in (*run.parameters, *run.activations)]
        return {one: tensors for one in handles if (tensors := learned_of(one))}

    def hand_over(self) -> list[Tensor]:
        """Return everything that is learned; from now on the user's optimizer moves it."""
        self.is_handed_over = True
        for run in self.runs:
            run.optimizer = None
        return [leaf for tensors in self.learned().values() for leaf in tensors.values()]

    def qparams(self) -> list[tuple[Handle, QParams]]:
        """Return the parameters in force, in plan order; dynamic ones have none."""
        return [
            (handle, qparams)
            for run in self.runs
            for handle in run.all_handles
            if (qparams := self.qparams_of(run, handle)) is not None
        ]

    def qparams_of(self, run: QuantizationRun, handle: Handle) -> QParams | None:
        """Return the parameters in force for one target, or None."""
        qparams = qparams_of(handle.module, handle.plan.target)
        if qparams is None and not run.is_simulated(handle):
            qparams = run.quantize_step(handle).qparams(handle.module)
        if qparams is None or not handle.is_activation or qparams.scale.ndim == 0:
            return qparams
        size = read_buffer(handle, "size")
        if size is not None:
            return qparams.evolve(block_size=tuple(size.tolist()))
        seen = self.seen.get(handle)
        if seen is not None and seen.blocks and len(seen.blocks) == qparams.scale.ndim:
            return qparams.evolve(block_size=seen.blocks)
        return qparams.evolve(block_size=tuple(-1 if n == 1 else 1 for n in qparams.scale.shape))

    def integers(self) -> list[tuple[Handle, IntegerTensor]]:
        """Return the integers of every quantized parameter and buffer."""
        found = []
        for run in self.runs:
            for handle in (*run.parameters, *run.derived):
                qparams = self.qparams_of(run, handle)
                if qparams is not None and run.is_simulated(handle):
                    found.append((handle, integers_of(run, handle, qparams)))
        return found

    def give_back(self) -> None:
        """Give targets the values they had before an algorithm changed them."""
        for handle, values in self.originals.items():
            handle.write(values)
        for handle, values in self.biases.items():
            restore_bias(handle, values)
