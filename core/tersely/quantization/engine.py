"""The quantization of a session: from observed ranges to scales in force, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.calibration.calibrate import observe_again
from tersely.calibration.module_observers import module_observers
from tersely.calibration.sequential import compress_in_sequence
from tersely.contracts.quantized_weights import ChangesAfterStep
from tersely.engine.context import Context
from tersely.engine.finite import need_finite
from tersely.engine.isolation.foreign import calling
from tersely.engine.observation.observers import Observers
from tersely.engine.protocol import Engine
from tersely.engine.state.cutting import Cut, FixedShapes, place_of
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import Saved, moments_of, restore_moments
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.unranked import warn_of_unranked
from tersely.errors import SessionError
from tersely.instrument.instruments import Instruments
from tersely.instrument.modules.attaching import is_attachable
from tersely.instrument.scales.padded import ATTENTION_MASK, PaddingOfCall
from tersely.planning.targets.signature import signature_of
from tersely.quantization.accumulators import fit_accumulators
from tersely.quantization.biases import (
    Corrected,
    correct_bias,
    cut_biases,
    gather_biases,
    restore_bias,
)
from tersely.quantization.editing import ByHand, checked_qparams
from tersely.quantization.factors.folding import Folding, described, foldings_of
from tersely.quantization.factors.input_factors import (
    Reading,
    cut_factors,
    describe_shared,
    place_factors,
    put_factors,
    share_again,
    without_factors,
)
from tersely.quantization.factors.of_stacks import stacks_with_one_input
from tersely.quantization.factors.producers import Found, find_producers, find_ties
from tersely.quantization.factors.saved_producers import describe_producers, rebuilt_producers
from tersely.quantization.folds import begin_folds, fold_members, folds_of
from tersely.quantization.given_scales import learn_given, note_given, write_all_given
from tersely.quantization.in_force import qparams_of
from tersely.quantization.integers import IntegerTensor, integers_of
from tersely.quantization.learned_scales import (
    adopt_learned,
    place_learned,
    place_leaves,
    renew_optimizer,
)
from tersely.quantization.plain_start import start_plainly
from tersely.quantization.ranges import RangeObservers, Seen, describe_seen
from tersely.quantization.readiness import (
    need_scales_to_finish,
    need_scales_to_step,
    warn_of_unreached,
)
from tersely.quantization.run import QuantizationRun, start_runs
from tersely.quantization.saved_scales import GRAMMAR, check_learned, check_scales, gather_scales
from tersely.quantization.scale_buffers import (
    device_of,
    has_known_shape,
    make_room,
    restore_scales,
)
from tersely.quantization.seen import restored_seen, unseen
from tersely.quantization.solving import quantize_parameters, quantize_seen
from tersely.quantization.steps import put_steps, renew_steps
from tersely.quantization.targets import target_of
from tersely.quantization.training_ranges import end_followed_step, start_or_freeze, warn_of_strange


class Quantization(Engine[QuantizationRun]):
    """All quantization stages of a session; mutable because scales and observations change.

    Attributes:
        seen: what calibration saw of inputs and outputs.
        biases: weight -> the bias that was corrected for what rounding it shifts.
        producers: weight with factors -> what can take them on finalizing, or why nothing can.
        is_outdated: whether masks came into force after calibration.
        has_room: whether modules have the buffers of future scales.
        plain: stages of which that is all: their steps depend on the kind of target alone.
        has_warned: whether a warning has named values that are not finite.
    """

    method = "quantization"
    grammar = GRAMMAR

    def __init__(self, context: Context) -> None:
        super().__init__(context, start_runs(context.binding))
        self.seen: dict[BoundTarget, Seen] = {}
        self.biases: dict[BoundTarget, Corrected] = {}
        self.producers: Found = {}
        self.is_outdated = False
        self.has_room = False
        self.plain: list[QuantizationRun] = []
        self.has_warned = False

    def with_padding(
        self, wanted: Mapping[nn.Module, Instruments], model: nn.Module
    ) -> dict[nn.Module, Instruments]:
        """Return instruments that tell ranges which follow training of each call's padding.

        The padding is the argument ``attention_mask`` of the model's own forward, if it takes one.

        Args:
            wanted: what each module does otherwise.
            model: the model.
        """
        found = dict(wanted)
        runs = [one for one in self.runs if one.follows_training() and one.activations]
        signature = signature_of(model)
        if runs and signature.problem(ATTENTION_MASK) is None and is_attachable(model):
            padding = PaddingOfCall(signature.index_of(ATTENTION_MASK))
            found[model] = attrs.evolve(found.get(model, Instruments()), padding=padding)
            for run in runs:
                run.padding = padding
        return found

    def start(self, steps: int) -> None:
        """Put the steps that quantize into the instrumented modules, and fold what is folded."""
        begun = self.begun_at(steps)
        if not self.has_room:
            for run in self.runs:
                if run in begun and start_plainly(run, self.context.model):
                    self.plain.append(run)
                else:
                    make_room(run, self.context.model)
            self.has_room = True
            begun = tuple(run for run in begun if run not in self.plain)
        self._install(begun, steps)

    def gaining(self) -> Iterator[nn.Module]:
        """Yield modules whose inputs are scaled, or whose scales are learned or not counted yet."""
        for run in self.runs:
            if run in self.plain:
                continue
            is_all = run.is_learning or run.is_equalizing
            for bound in run.all_bound_targets if is_all else run.activations:
                if is_all or not has_known_shape(run, bound):
                    yield from (module for module, _ in bound.owners)

    def _install(self, runs: Sequence[QuantizationRun], steps: int) -> None:
        for run in runs:
            begin_folds(self.context.binding, run.stage)
            put_steps(run, self.bound_targets, steps=steps)

    def observers(self, runs: Sequence[QuantizationRun]) -> list[Observers]:
        """Return fresh observers of ranges, with nothing quantized, and of modules."""
        return [self._ranges(runs), *module_observers(runs)]

    def _ranges(self, runs: Sequence[QuantizationRun]) -> RangeObservers:
        return RangeObservers(unseen(runs), self._modules(), self.seen)

    def _modules(self) -> list[nn.Module]:
        return [module for bound in self.bound_targets for module, _ in bound.owners]

    def outdate(self) -> None:
        """Note that masks came into force after calibration."""
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
        need_finite(one for run in runs for one in run.all_bound_targets)
        if is_changed:
            observe_again(self.context, [self._ranges(()), *module_observers(runs)])
        quantize = partial(
            quantize_parameters,
            change=lambda bound, values: self.change(bound, values, journal),
            correct_bias=lambda bound, change: correct_bias(self.biases, bound, change, journal),
            reading=Reading(
                lambda groups: find_ties(groups, self.context, self.bound_targets),
                lambda weights: stacks_with_one_input(weights, self.context, self.bound_targets),
                self.bound_targets,
            ),
        )
        for run in runs:
            run.groups = []
            matrices = set(run.bound_targets)
            if run.is_sequential:
                self._in_sequence(run, quantize)
            else:
                quantize(run, run.bound_targets)
            quantize(run, [one for one in run.parameters if one not in matrices])
            # Other weights, or divided inputs: the ranges that were observed no longer hold.
            is_changed = is_changed or run.is_looking_again
        if is_changed and is_seen:
            self._see_again(runs)
        for run in runs:
            quantize_seen(run, self.seen)
            self._learn(run)
        groups = [group for run in runs for group in run.groups]
        self.producers.update(
            find_producers(groups, self.context, self.bound_targets, fused=set(self._folded()))
        )
        fit_accumulators(self.bound_targets, has_warning=True)
        warn_of_unranked(runs, "rounded to nearest")

    def _see_again(self, runs: Sequence[QuantizationRun]) -> None:
        if self.context.batches is None:
            plan = next(iter(self.seen)).plan
            raise SessionError(
                f"{plan.name} was calibrated before the session was loaded, and weights or masks "
                "have changed since; call session.calibrate(batches) again",
                **plan.place,
            )
        observe_again(self.context, [self._ranges(runs)])

    def _in_sequence(self, run: QuantizationRun, quantize: Callable[..., None]) -> None:
        if run.given.issuperset(run.bound_targets):
            return
        if self.context.batches is None:
            plan = run.bound_targets[0].plan
            raise SessionError(
                f"{plan.name} is quantized block by block on calibration batches; call "
                "session.calibrate(batches) before session.compress()",
                **plan.place,
            )
        compress_in_sequence(
            run, self.context.model, self.context.batches, compress=partial(quantize, run)
        )

    def set_qparams(self, qparams: ByHand, *, is_frozen: bool) -> None:
        """Put the user's scales and zero points in force, or leave them to algorithms again.

        Args:
            qparams: module -> target -> its parameters, or None.
            is_frozen: whether training leaves them alone.
        """
        checked = checked_qparams(qparams, self.runs, self.seen)
        need_finite(checked)
        for run in self.runs:
            mine = {one: found for one, (of, found) in checked.items() if of is run}
            if mine:
                self._take(run, mine, is_frozen=is_frozen)
        fit_accumulators(self.bound_targets, has_warning=True)
        self.is_compressed = self.is_compressed or all(
            qparams_of(run, bound, self.seen) is not None
            for run in self.begun
            for bound in (*run.parameters, *run.activations)
        )

    def _take(
        self, run: QuantizationRun, given: Mapping[BoundTarget, QParams | None], *, is_frozen: bool
    ) -> None:
        moments = moments_of(run.optimizer, run.all_learned())
        changed = note_given(run, given, is_frozen=is_frozen)
        has_begun = run in self.begun
        if changed and has_begun:
            renew_steps(run, self.bound_targets, changed, steps=self.context.steps)
        write_all_given(run, given, has_begun=has_begun)
        if run.is_learning and not self.is_handed_over:
            renew_optimizer(run, Saved(moments, {}))

    def _learn(self, run: QuantizationRun) -> None:
        if not run.is_learning:
            return
        has_new = False
        for bound in (*run.parameters, *run.activations):
            if bound not in run.given:
                has_new = bool(place_learned(run, bound, self.seen.get(bound))) or has_new
            elif bound not in run.frozen:
                learn_given(run, bound)
                has_new = True
        if has_new and not self.is_handed_over:
            run.make_optimizer()

    def losses(self) -> list[Tensor]:
        """Return the penalties of the stages that are running."""
        found = [run.penalty(self.context.steps) for run in self.runs]
        return [one for one in found if one is not None]

    def need_to_step(self) -> None:
        """Refuse to step before there are scales, unless training makes them."""
        if not self.is_compressed:
            need_scales_to_step(self.begun, self.seen)

    def need_to_finish(self, call: str) -> None:
        """Refuse to finish while a target has no scale."""
        need_scales_to_finish(self.runs, self.seen, call, is_compressed=self.is_compressed)

    def step(self, steps: int, journal: Journal) -> bool:
        """Advance by one optimizer step; masks do not change."""
        begun, before = self.begun, self.context.steps
        strange = end_followed_step(begun)
        if strange and not self.has_warned:
            self.has_warned = True
            warn_of_strange(strange)
        # First what can fail, so that a second try moves nothing twice.
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
                for bound in run.parameters:
                    with torch.no_grad(), calling(bound.plan, "after_step"):
                        run.algorithm.after_step(bound.raw, target_of(bound, run.grid(bound)))
        fit_accumulators(self.bound_targets, has_warning=False)
        start_or_freeze(self.runs, self.bound_targets, before=before, steps=steps)
        warn_of_unreached(begun, self.seen, steps=steps, is_compressed=self.is_compressed)
        return False

    def qparams(self) -> list[tuple[BoundTarget, QParams]]:
        """Return the parameters in force, in plan order; dynamic ones have none."""
        return [
            (bound, qparams)
            for run in self.runs
            for bound in run.all_bound_targets
            if (qparams := qparams_of(run, bound, self.seen)) is not None
        ]

    @property
    def is_rounding(self) -> bool:
        """Whether forward rounds anything, by scales in force or by each call's own."""
        return bool(self.qparams()) or any(
            bound.is_activation and run.is_dynamic(bound)
            for run in self.begun
            for bound in run.all_bound_targets
        )

    def integers(self) -> list[tuple[BoundTarget, Callable[[], IntegerTensor]]]:
        """Return every quantized parameter and buffer with what computes its integers."""
        found: list[tuple[BoundTarget, Callable[[], IntegerTensor]]] = []
        for run in self.runs:
            for bound in (*run.parameters, *run.derived):
                qparams = qparams_of(run, bound, self.seen)
                if qparams is not None and run.is_simulated(bound):
                    found.append((bound, partial(integers_of, run, bound, qparams)))
        return found

    def foldings(self) -> tuple[list[Folding], dict[BoundTarget, str]]:
        """Return which factors `finalize` folds, and why it divides out the others."""
        if not self.producers:
            return [], {}
        return foldings_of(self.producers, self.qparams())

    def remarks(self) -> list[str]:
        """Return what becomes of the factors of inputs."""
        return described(*self.foldings())

    def note(self, journal: Journal, *, is_step: bool) -> None:
        """Note everything that tersely added to modules that are quantized or folded."""
        super().note(journal, is_step=is_step)
        journal.note_attributes(self, "seen", "biases", "producers", "is_outdated")
        journal.note_modules(dict.fromkeys([*self._modules(), *self._folded()]))

    def _folded(self) -> list[nn.Module]:
        return [
            module
            for _, layer, fold in folds_of(self.context.binding)
            for module in fold_members(layer, fold)
        ]

    @property
    def has_written(self) -> bool:
        """Whether parameters hold other values than the user's, which are given back at the end."""
        return super().has_written or bool(self.biases)

    def give_back(self) -> None:
        """Give targets the values they had before an algorithm changed them."""
        super().give_back()
        for corrected in self.biases.values():
            corrected.give_back()

    def save(self) -> Saved:
        """Return scales, what was seen, observed and learned, and changed values."""
        parts = self.gathered()
        parts.update(gather_scales(self.bound_targets))
        for bound, seen in self.seen.items():
            parts["seen", bound.plan.name] = dict(seen.statistics)
        parts.update(gather_biases(self.biases))
        data = {
            "is_compressed": self.is_compressed,
            "handed_over": self.is_handed_over,
            "seen": {bound.plan.name: describe_seen(seen) for bound, seen in self.seen.items()},
            "given": {
                bound.plan.name: bound in run.frozen
                for run in self.runs
                for bound in run.all_bound_targets
                if bound in run.given
            },
            "producers": describe_producers(self.producers),
        }
        if shared := describe_shared(self.runs):
            data["shared_inputs"] = shared
        return Saved(parts, data)

    def fixed_shapes(self, saved: Saved) -> FixedShapes:
        """Keep the shape of inputs and outputs that have more than one scale."""
        return {
            place_of(bound): f"{bound.plan.name} has a scale for each of its channels"
            for bound in self.bound_targets
            if bound.is_activation
            for kind in ("buffer", "seen")
            for tensor in saved.of(kind, bound.plan.name).values()
            if tensor.ndim and tensor.numel() > 1
        }

    def cut(self, saved: Saved, cuts: Mapping[str, Cut]) -> Saved:
        """Cut scales, factors of inputs, and the biases from before they were corrected."""
        factors = cut_factors(self.bound_targets, saved, cuts)
        found = super().cut(without_factors(saved, factors), cuts)
        put_factors(found, factors)
        cut_biases(self.biases, saved, found, cuts, name_of=self.context.binding.name_of)
        return found

    def check(self, saved: Saved, steps: int) -> None:
        """Check a saved state before anything is changed."""
        super().check(saved, steps)
        for run in self.runs:
            for bound in run.all_bound_targets:
                parts = saved.of("buffer", bound.plan.name)
                check_scales(bound, run.quantize_step(bound).cut, parts)
                learned = saved.of("learned", bound.plan.name)
                check_learned(bound, learned, parts.get("scale"))

    def restore(self, saved: Saved, steps: int, journal: Journal) -> None:
        """Put a checked state in force."""
        given = saved.data.get("given", {})
        for run in self.runs:
            run.given = {one for one in run.all_bound_targets if one.plan.name in given}
            run.frozen = {one for one in run.given if given[one.plan.name]}
        self.start(steps)
        self.restore_gathered(saved, journal)
        share_again(self.runs, saved)
        for bound in sorted(self.bound_targets, key=lambda one: one.is_activation):
            buffers = saved.of("buffer", bound.plan.name)
            device = device_of(bound)
            restore_scales(bound, {part: value.to(device) for part, value in buffers.items()})
            if "input_scale" in buffers and bound.plan.has_experts:
                place_factors(self.bound_targets, bound)
            restore_bias(self.biases, bound, saved, journal)
        self.seen = restored_seen(self.runs, saved)
        self.producers = rebuilt_producers(
            saved.data.get("producers", {}), self.bound_targets, self.context.binding
        )
        self.is_compressed = bool(saved.data["is_compressed"])
        self.is_handed_over = bool(saved.data["handed_over"])
        for run in self.runs:
            self._restore_learned(run, saved)

    def _restore_learned(self, run: QuantizationRun, saved: Saved) -> None:
        has_learned = False
        # In the order of `_learn`: models are averaged by the order of their entries.
        for bound in (*run.parameters, *run.activations):
            values = saved.of("learned", bound.plan.name)
            if values:
                has_learned = True
                place_leaves(run, bound, values, seen=self.seen.get(bound))
        run.optimizer = None
        if has_learned and not self.is_handed_over:
            run.make_optimizer()
            restore_moments(run.optimizer, run.all_learned(), saved)
