"""The quantization of a session: from observed ranges to scales in force, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.calibration.calibrate import observe_again
from tersely.calibration.sequential import compress_in_sequence
from tersely.calibration.watching import module_observers
from tersely.contracts.quantizer import ChangesAfterStep
from tersely.engine.binding import Handle
from tersely.engine.context import Context
from tersely.engine.cutting import Cut, Held, move_along, place_of
from tersely.engine.journal import Journal
from tersely.engine.protocol import Engine, Observers
from tersely.engine.saver import MOVED, Grammar, Saved, restore_moments
from tersely.engine.unranked import warn_of_unranked
from tersely.errors import SessionError
from tersely.instrument.in_force import qparams_of
from tersely.instrument.moving_range import check_followed, end_step
from tersely.instrument.names import STATE_PARTS
from tersely.quantization.accumulators import fit_accumulators
from tersely.quantization.folds import begin_folds, fold_members, folds_of
from tersely.quantization.integers import IntegerTensor, integers_of
from tersely.quantization.learned_scales import adopt_learned
from tersely.quantization.placing import place_learned, place_leaves, read_buffer, write_buffer
from tersely.quantization.ranges import RangeObservers, Seen, describe_seen, rebuilt_seen
from tersely.quantization.run import QuantizationRun, start_runs
from tersely.quantization.solving import quantize_parameters, quantize_seen
from tersely.quantization.steps import put_steps
from tersely.quantization.targets import target_of


class Quantization(Engine[QuantizationRun]):
    """All quantization stages of a session; mutable because scales and observations change.

    Attributes:
        seen: what calibration saw of inputs and outputs.
        biases: weight -> the bias beside it before it was corrected.
        is_outdated: whether masks came in force after calibration.
    """

    method = "quantization"
    grammar = Grammar(
        "quantization.",
        {
            "buffer": True,
            "seen": True,
            "observed": True,
            "learned": True,
            MOVED: True,
            "value": False,
            "original": False,
            "bias": False,
            "old_bias": False,
        },
    )

    def __init__(self, context: Context) -> None:
        super().__init__(context, start_runs(context.binding))
        self.seen: dict[Handle, Seen] = {}
        self.biases: dict[Handle, Tensor] = {}
        self.is_outdated = False

    def start(self, steps: int) -> None:
        """Put the steps that quantize into the instrumented modules, and fold what is folded."""
        self._install(self.begun_at(steps), steps)

    def _install(self, runs: Sequence[QuantizationRun], steps: int) -> None:
        for run in runs:
            begin_folds(self.context.binding, run.stage)
            put_steps(run, self.handles, steps=steps)

    def observers(self, runs: Sequence[QuantizationRun]) -> list[Observers]:
        """Return fresh observers of ranges, with nothing quantized, and of modules."""
        return [self._ranges(runs), *module_observers(runs)]

    def _ranges(self, runs: Sequence[QuantizationRun]) -> RangeObservers:
        seen = [
            Seen(
                handle,
                run.quantize_step(handle).cut,
                run.observer(handle),
                is_required=run.stage.unreached == "error",
            )
            for run in runs
            for handle in run.activations
        ]
        return RangeObservers(seen, self._modules(), self.seen)

    def _modules(self) -> list[nn.Module]:
        return [module for handle in self.handles for module, _ in handle.owners]

    def outdate(self) -> None:
        """Take note that masks came in force after calibration."""
        self.is_outdated = True

    @property
    def is_in_force(self) -> bool:
        """Whether scales were chosen, or there are none to choose."""
        return self.is_compressed or not self.runs

    def compress(self, journal: Journal) -> bool:
        """Choose all scales and put them in force."""
        self._choose(self.begun, journal, is_changed=self.is_outdated, is_seen=bool(self.seen))
        self.is_compressed = True
        self.is_outdated = False
        return False

    def _choose(
        self,
        runs: Sequence[QuantizationRun],
        journal: Journal,
        *,
        is_changed: bool,
        is_seen: bool,
    ) -> None:
        if is_changed:
            observe_again(self.context, [self._ranges(()), *module_observers(runs)])
        quantize = partial(
            quantize_parameters,
            change=lambda handle, values: self.change(handle, values, journal),
            correct_bias=lambda handle, change: self._correct_bias(handle, change, journal),
        )
        for run in runs:
            matrices = set(run.handles)
            if run.is_sequential:
                self._in_sequence(run, quantize)
            else:
                quantize(run, run.handles)
            quantize(run, [one for one in run.parameters if one not in matrices])
            # Other weights, or divided inputs: the ranges of before are not those of now.
            is_changed = is_changed or run.is_looking_again
        if is_changed and is_seen:
            self._see_again(runs)
        for run in runs:
            quantize_seen(run, self.seen)
            self._learn(run)
        fit_accumulators(self.handles, is_told=True)
        warn_of_unranked(runs, "rounded to nearest")

    def _see_again(self, runs: Sequence[QuantizationRun]) -> None:
        if self.context.batches is None:
            raise SessionError(
                f"{next(iter(self.seen)).plan.name} was calibrated before the session was "
                f"loaded, and weights or masks have changed since; call "
                f"session.calibrate(batches) again",
                target=next(iter(self.seen)).plan.name,
            )
        observe_again(self.context, [self._ranges(runs)])

    def _in_sequence(self, run: QuantizationRun, quantize: Callable[..., None]) -> None:
        if not run.handles:
            return
        if self.context.batches is None:
            raise SessionError(
                f"{run.handles[0].plan.name} is quantized block by block on calibration "
                f"batches; call session.calibrate(batches) before session.compress()",
                target=run.handles[0].plan.name,
                algorithm=run.stage.algorithm,
            )
        compress_in_sequence(
            run, self.context.model, self.context.batches, compress=partial(quantize, run)
        )

    def _correct_bias(self, weight: Handle, change: Tensor, journal: Journal) -> None:
        bias = weight.module._parameters["bias"]
        assert bias is not None  # the caller has looked
        journal.note_parameter(weight.module, "bias")
        self.biases.setdefault(weight, bias.detach().clone())
        with torch.no_grad():
            bias.add_(change.to(bias.dtype))

    def _learn(self, run: QuantizationRun) -> None:
        has_new = False
        for handle in (*run.parameters, *run.activations):
            has_new = bool(place_learned(run, handle, self.seen.get(handle))) or has_new
        if has_new and not self.is_handed_over:
            run.make_optimizer()

    def need_to_step(self) -> None:
        """Refuse to step before scales are there, unless training makes them."""
        if self.is_compressed:
            return
        for run in self.begun:
            if run.follows_training() is not None:
                self._need_training_mode(run)
            for handle in () if run.follows_training() else (*run.parameters, *run.activations):
                if run.is_simulated(handle) and self.qparams_of(run, handle) is None:
                    raise SessionError(
                        f"step() found no scale of {handle.plan.name}; call session.compress() "
                        f"before the training loop",
                        target=handle.plan.name,
                        algorithm=run.stage.algorithm,
                    )

    def _need_training_mode(self, run: QuantizationRun) -> None:
        followed = [one for one in (*run.parameters, *run.activations) if run.is_simulated(one)]
        if not followed or any(
            handle.module.training or self.qparams_of(run, handle) is not None
            for handle in followed
        ):
            return
        raise SessionError(
            f"step() found no range of {followed[0].plan.name}: the model is in evaluation mode, "
            f"in which {run.stage.algorithm} observes nothing; call model.train() before the "
            f"training loop",
            target=followed[0].plan.name,
            algorithm=run.stage.algorithm,
        )

    def need_to_finish(self, call: str) -> None:
        """Refuse to finish while a target has no scale."""
        for run in self.runs:
            for handle in (*run.parameters, *run.activations, *run.derived):
                if not run.is_simulated(handle) or self.qparams_of(run, handle) is not None:
                    continue
                if self.is_compressed and run.stage.unreached != "error":
                    continue  # calibration did not reach it, and it stays as it is
                first = "call session.compress() first"
                if handle.is_activation and handle not in self.seen:
                    first = "call session.calibrate(batches) and session.compress() first"
                if run.follows_training() is not None:
                    first = "train some steps in training mode, or " + first
                raise SessionError(
                    f"{call}() found no scale of {handle.plan.name}; {first}",
                    target=handle.plan.name,
                    algorithm=run.stage.algorithm,
                )

    def step(self, steps: int, journal: Journal) -> bool:
        """Advance by one optimizer step; masks do not change."""
        begun, before = self.begun, self.context.steps
        for run in begun:
            for handle in (*run.parameters, *run.activations) if run.follows_training() else ():
                check_followed(handle.module, handle.plan.target, handle.plan.name)
                for module, attribute in handle.owners:
                    end_step(module, attribute)
        # First what can fail: nothing is moved then that a second try would move again.
        beginning = self.beginning(steps)
        if beginning:
            has_batches = self.context.batches is not None
            self._install(beginning, steps)
            self._choose(beginning, journal, is_changed=has_batches, is_seen=has_batches)
        for run in begun:
            if not self.is_handed_over:
                adopt_learned(run)
            run.need_the_same_everywhere((*run.parameters, *run.activations))
            run.move_learned()
            if isinstance(run.algorithm, ChangesAfterStep):
                for handle in run.parameters:
                    with torch.no_grad():
                        run.algorithm.after_step(handle.raw, target_of(handle, run.grid(handle)))
        fit_accumulators(self.handles, is_told=False)
        self._start_or_freeze(before, steps)
        return False

    def _start_or_freeze(self, before: int, steps: int) -> None:
        """Let quantization start, or ranges freeze, where the step for it has come."""
        for run in self.runs:
            follower = run.follows_training()
            if follower is None:
                continue
            changes = (follower.start_step, follower.freeze_step)
            begin = run.stage.begin
            if any(one is not None and before < begin + one <= steps for one in changes):
                put_steps(run, self.handles, steps=steps)

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

    def note(self, journal: Journal, *, is_step: bool) -> None:
        """Note everything of ours in the modules that are quantized or folded."""
        super().note(journal, is_step=is_step)
        journal.note_attributes(self, "seen", "biases", "is_outdated")
        folded = [
            module
            for _, layer, fold in folds_of(self.context.binding)
            for module in fold_members(layer, fold)
        ]
        for module in dict.fromkeys([*self._modules(), *folded]):
            journal.note_module(module)

    def give_back(self) -> None:
        """Give targets the values they had before an algorithm changed them."""
        super().give_back()
        for weight, values in self.biases.items():
            _write_bias(weight, values)

    def save(self) -> Saved:
        """Return scales, what was seen, observed and learned, and changed values."""
        parts = self.gathered()
        for handle in self.handles:
            buffers = {part: read_buffer(handle, part) for part in STATE_PARTS}
            found = {part: buffer for part, buffer in buffers.items() if buffer is not None}
            if found:
                parts["buffer", handle.plan.name] = found
        for handle, seen in self.seen.items():
            parts["seen", handle.plan.name] = dict(seen.statistics)
        for handle, values in self.biases.items():
            bias = handle.module._parameters["bias"]
            parts["old_bias", handle.plan.name] = {"": values}
            if bias is not None:
                parts["bias", handle.plan.name] = {"": bias.detach()}
        data = {
            "is_compressed": self.is_compressed,
            "handed_over": self.is_handed_over,
            "seen": {handle.plan.name: describe_seen(seen) for handle, seen in self.seen.items()},
        }
        return Saved(parts, data)

    def held(self, saved: Saved) -> Held:
        """Keep the shape of inputs and outputs that have more than one scale."""
        return {
            place_of(handle): f"{handle.plan.name} has a scale for each of its channels"
            for handle in self.handles
            if handle.is_activation
            for kind in ("buffer", "seen")
            for tensor in saved.of(kind, handle.plan.name).values()
            if tensor.ndim and tensor.numel() > 1
        }

    def cut(self, saved: Saved, cuts: Mapping[str, Cut]) -> Saved:
        """Cut scales, and the biases of before they were corrected."""
        found = super().cut(saved, cuts)
        for kind in ("bias", "old_bias"):
            for handle in self.biases:
                cut = cuts.get(f"{handle.plan.module}.bias".lstrip("."))
                one = saved.one(kind, handle.plan.name)
                if one is not None:
                    found.parts[kind, handle.plan.name] = {"": one if cut is None else cut(one)}
        for handle in self.biases:
            bias = handle.module._parameters["bias"]
            if bias is not None:
                move_along(found, handle.plan.name, ("bias", "old_bias"), bias.detach())
        return found

    def restore(self, saved: Saved, steps: int, journal: Journal) -> None:
        """Put a checked state in force."""
        self.start(steps)
        self.restore_gathered(saved, journal)
        for handle in self.handles:
            buffers = saved.of("buffer", handle.plan.name)
            device = _device(handle)
            for part in STATE_PARTS:
                value = buffers.get(part)
                write_buffer(handle, part, None if value is None else value.to(device))
            bias, old_bias = (
                saved.one("bias", handle.plan.name),
                saved.one("old_bias", handle.plan.name),
            )
            if bias is not None and old_bias is not None:
                journal.note_parameter(handle.module, "bias")
                _write_bias(handle, bias)
                self.biases.setdefault(handle, old_bias.to(device))
        about = saved.data["seen"]
        self.seen = {
            handle: rebuilt_seen(
                Seen(handle, run.quantize_step(handle).cut, run.observer(handle)),
                {part: one.to(_device(handle)) for part, one in statistics.items()},
                about[handle.plan.name],
            )
            for run in self.runs
            for handle in run.all_handles
            if (statistics := saved.of("seen", handle.plan.name))
        }
        self.is_compressed = bool(saved.data["is_compressed"])
        self.is_handed_over = bool(saved.data["handed_over"])
        for run in self.runs:
            self._restore_learned(run, saved)

    def _restore_learned(self, run: QuantizationRun, saved: Saved) -> None:
        has_learned = False
        for handle in run.all_handles:
            values = saved.of("learned", handle.plan.name)
            if values:
                has_learned = True
                place_leaves(run, handle, values, seen=self.seen.get(handle))
        run.optimizer = None
        if has_learned and not self.is_handed_over:
            run.make_optimizer()
            restore_moments(run.optimizer, run.all_learned(), saved)


def _device(handle: Handle) -> torch.device:
    if not handle.is_activation:
        return handle.raw.device
    for tensor in handle.module.parameters():
        return tensor.device
    return torch.device("cpu")


def _write_bias(weight: Handle, values: Tensor) -> None:
    bias = weight.module._parameters["bias"]
    if bias is not None:
        with torch.no_grad():
            bias.copy_(values)
