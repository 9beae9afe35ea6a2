"""The quantization of a session: from observed ranges to scales in force, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from laconic.algorithms import QParams
from laconic.errors import SessionError
from laconic.instrument.instruments import Transform
from laconic.instrument.names import QUANTIZE, learned_buffer
from laconic.instrument.quantizing import (
    Dynamic,
    Follow,
    Learned,
    QuantizeBias,
    Simulated,
    check_followed,
    qparams_of,
)
from laconic.instrument.transforms import put
from laconic.quantizer_abilities import ChangesAfterStep, LearnsScales
from laconic.session.handles import Binding, Handle
from laconic.session.learning import step_optimizer
from laconic.session.module_observing import Watch, collect_watches, watch_modules
from laconic.session.observing import run_batches
from laconic.session.quantization.agreement import need_agreement
from laconic.session.quantization.integers import IntegerTensor, integers_of
from laconic.session.quantization.journal import Journal, restore_bias
from laconic.session.quantization.placing import (
    input_of,
    learned_of,
    place_factors,
    place_learned,
    read_buffer,
)
from laconic.session.quantization.ranges import Seen, join, observing
from laconic.session.quantization.runs import QuantizationRun, start_runs
from laconic.session.quantization.solving import quantize_parameters, quantize_seen
from laconic.session.quantization.targets import target_of
from laconic.session.sequential import Batches, compress_in_sequence


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

    @property
    def handles(self) -> tuple[Handle, ...]:
        """All quantization targets, in plan order."""
        return tuple(one for run in self.runs for one in run.all_handles)

    def start(self) -> None:
        """Put the steps that quantize into the instrumented modules."""
        for run in self.runs:
            derived = set(run.derived)
            for handle in run.all_handles:
                if not run.is_simulated(handle):
                    continue
                for module, attribute in handle.owners:
                    step = (
                        self._bias_step(run, handle)
                        if handle in derived
                        else self._step(run, handle, attribute)
                    )
                    put(module, attribute, (step,), place=QUANTIZE)
            if run.is_equalizing:
                for handle in run.handles:
                    place_factors(self.handles, handle)

    def _step(self, run: QuantizationRun, handle: Handle, attribute: str) -> Transform:
        plain = run.quantize_step(handle, attribute)
        # The size of an input or output comes with its values; only whether it is one block counts.
        size = (-1,) if plain.cut.kind == "tensor" else (1,)
        tensor = target_of(handle, plain.grid, size=size)
        if handle.is_activation and run.is_dynamic(handle):
            return Dynamic(run.quantizer, tensor, plain)
        simulating = run.simulating()
        if simulating is not None:
            return Simulated(simulating, tensor, plain)
        if isinstance(run.quantizer, LearnsScales):
            return Learned(run.quantizer, tensor, plain)
        following = run.following()
        if following is not None and not self._is_frozen(run):
            is_quantizing = self.steps >= following.start_step
            return Follow(run.quantizer, tensor, plain, following.decay, is_quantizing)
        return plain

    def _bias_step(self, run: QuantizationRun, handle: Handle) -> QuantizeBias:
        source = input_of(self.handles, handle.module)
        return QuantizeBias(handle.plan.target, source or "", "weight", run.grid(handle))

    def _is_frozen(self, run: QuantizationRun) -> bool:
        following = run.following()
        limit = None if following is None else following.freeze_step
        return limit is not None and self.steps >= limit

    # Observing

    def seers(self) -> list[Seen]:
        """Return fresh observers of every input and output that has one scale for all calls."""
        return [
            Seen(handle, run.quantize_step(handle).cut, run.observer(handle))
            for run in self.runs
            for handle in run.activations
        ]

    def modules(self) -> list[nn.Module]:
        """Return every module with a quantized target, holders of tied parameters included."""
        return [module for handle in self.handles for module, _ in handle.owners]

    def watches(self) -> list[tuple[QuantizationRun, list[Watch]]]:
        """Return observers of modules for the stages that are not calibrated block by block."""
        return [
            (run, run.watches(run.handles))
            for run in self.runs
            if run.is_observing_modules and not run.is_sequential
        ]

    @property
    def is_keeping_batches(self) -> bool:
        """Whether calibration batches are needed again in compress."""
        return any(run.is_sequential or run.is_equalizing for run in self.runs)

    # Compressing

    def compress(self) -> None:
        """Choose all scales and put them in force; after an error everything is as it was."""
        journal = Journal(self)
        is_changed = self.is_outdated
        try:
            if is_changed and self.batches is not None:
                self._watch_again(self.batches)
            for run in self.runs:
                matrices = set(run.handles)
                if run.is_sequential:
                    self._in_sequence(run, journal)
                else:
                    quantize_parameters(self, run, run.handles, journal)
                vectors = [one for one in run.parameters if one not in matrices]
                quantize_parameters(self, run, vectors, journal)
                is_changed = is_changed or run.is_equalizing
            if is_changed and self.seen:
                self._see_again()
            for run in self.runs:
                quantize_seen(self, run)
                self._learn(run)
        except BaseException:
            journal.undo()
            raise
        self.is_compressed = True
        self.is_outdated = False

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

    def _watch_again(self, batches: Batches) -> None:
        runs = self.watches()
        watches = [watch for _, some in runs for watch in some]
        if not watches:
            return
        with observing((), self.modules()), watch_modules(watches):
            run_batches(self.model, batches.batches, batches.forward)
        collect_watches(watches)
        for run, some in runs:
            run.observed = {watch.handle: watch.sums for watch in some}

    def _see_again(self) -> None:
        batches = self.batches
        if batches is None:
            raise SessionError(
                f"{next(iter(self.seen)).plan.name} was calibrated before the session was loaded, "
                f"and weights or masks have changed since; call session.calibrate(batches) again"
            )
        seen = self.seers()
        with observing(seen, self.modules()):
            count = run_batches(self.model, batches.batches, batches.forward)
        join(seen, count)
        self.seen = {one.handle: one for one in seen}

    def _learn(self, run: QuantizationRun) -> None:
        tensors = [
            leaf
            for handle in (*run.parameters, *run.activations)
            for leaf in place_learned(run, handle, self.seen.get(handle))
        ]
        if tensors and not self.is_handed_over:
            run.make_optimizer(tensors)

    # Training

    def step(self, steps: int) -> None:
        """Advance by one optimizer step.

        Args:
            steps: optimizer steps so far, that one counted.

        Raises:
            CalibrationError: a range that training moved is not finite.
            SessionError: the processes have moved what is learned apart.
        """
        for run in self.runs:
            self._adopt(run)
            if run.optimizer is not None:
                step_optimizer(run.optimizer)
            elif run.is_learning:
                need_agreement(run)
            if isinstance(run.quantizer, ChangesAfterStep):
                for handle in run.parameters:
                    with torch.no_grad():
                        run.quantizer.after_step(handle.raw, target_of(handle, run.grid(handle)))
            following = run.following()
            if following is not None:
                for handle in (*run.parameters, *run.activations):
                    check_followed(handle.module, handle.plan.target, handle.plan.name)
        self.move_to(steps)

    def move_to(self, steps: int) -> None:
        """Let quantization start, or ranges freeze, when their step has come.

        Args:
            steps: optimizer steps so far.
        """
        before, self.steps = self.steps, steps
        for run in self.runs:
            following = run.following()
            if following is None:
                continue
            turns = (following.start_step, following.freeze_step)
            if any(turn is not None and before < turn <= steps for turn in turns):
                for handle in (*run.parameters, *run.activations):
                    if run.is_simulated(handle):
                        for module, attribute in handle.owners:
                            step = self._step(run, handle, attribute)
                            put(module, attribute, (step,), place=QUANTIZE)

    def _adopt(self, run: QuantizationRun) -> None:
        """Let the session move what a checkpoint brought, the same tensor for every holder."""
        if not run.is_learning or run.optimizer is not None or self.is_handed_over:
            return
        leaves = []
        for handle in (*run.parameters, *run.activations):
            for name, leaf in learned_of(handle).items():
                leaves.append(leaf)
                for module, attribute in handle.others:
                    buffer = learned_buffer(attribute, name)
                    twin, module._buffers[buffer] = module._buffers[buffer], leaf
                    if twin is not None and twin is not leaf and twin.grad is not None:
                        leaf.grad = twin.grad if leaf.grad is None else leaf.grad + twin.grad
        if leaves:
            run.make_optimizer(leaves)

    def learned(self) -> dict[Handle, dict[str, Tensor]]:
        """Return what is learned, by target and name."""
        found = {}
        for run in self.runs:
            for handle in (*run.parameters, *run.activations) if run.is_learning else ():
                tensors = learned_of(handle)
                if tensors:
                    found[handle] = tensors
        return found

    def hand_over(self) -> list[Tensor]:
        """Return everything that is learned; from now on the user's optimizer moves it."""
        self.is_handed_over = True
        for run in self.runs:
            run.optimizer = None
        return [leaf for tensors in self.learned().values() for leaf in tensors.values()]

    # What is in force

    def qparams(self) -> list[tuple[Handle, QParams]]:
        """Return the parameters in force, in plan order; dynamic ones have none."""
        found = []
        for run in self.runs:
            for handle in run.all_handles:
                qparams = self.qparams_of(run, handle)
                if qparams is not None:
                    found.append((handle, qparams))
        return found

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

    def need_scales(self, call: str) -> None:
        """Refuse a call that needs every scale in force.

        Args:
            call: the method that was called.

        Raises:
            SessionError: a target has no scale yet.
        """
        for run in self.runs:
            for handle in (*run.parameters, *run.activations, *run.derived):
                if not run.is_simulated(handle) or self.qparams_of(run, handle) is not None:
                    continue
                first = "call session.compress() first"
                if handle.is_activation and handle not in self.seen:
                    first = "call session.calibrate(batches) and session.compress() first"
                if run.following() is not None:
                    first = "train some steps in training mode, or " + first
                raise SessionError(f"{call}() found no scale of {handle.plan.name}; {first}")

    def need_scales_to_step(self) -> None:
        """Refuse to step before scales are there, unless training makes them.

        Raises:
            SessionError: something must be called first.
        """
        if self.is_compressed or all(run.following() is not None for run in self.runs):
            return
        for run in self.runs:
            if run.following() is None:
                for handle in (*run.parameters, *run.activations):
                    if run.is_simulated(handle) and self.qparams_of(run, handle) is None:
                        raise SessionError(
                            f"step() found no scale of {handle.plan.name}; call "
                            f"session.compress() before the training loop"
                        )

    def give_back(self) -> None:
        """Give targets the values they had before an algorithm changed them."""
        for handle, values in self.originals.items():
            handle.write(values)
        for handle, values in self.biases.items():
            restore_bias(handle, values)
