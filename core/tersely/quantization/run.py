"""Quantization stages in a session: each algorithm, and everything that it has gathered."""

from __future__ import annotations

from functools import cached_property
from typing import TypeAlias

import attrs
from torch import Tensor

from tersely.arithmetic.ranges import MinMax
from tersely.contracts.abilities import Penalizes
from tersely.contracts.quantized_forward import ClipsGradients, LearnsScales, Simulates
from tersely.contracts.quantized_weights import Equalizes
from tersely.contracts.quantizer import (
    ChoosesPerCall,
    FollowsTraining,
    Observer,
    ObservesRange,
    QuantizationTarget,
    Quantizer,
)
from tersely.engine.isolation.foreign import ForeignCall
from tersely.engine.run import Run
from tersely.engine.state.journal import Journal
from tersely.engine.targets.binding import Binding, BoundTarget
from tersely.instrument.scales.by_algorithm import Learned
from tersely.instrument.scales.padded import PaddingOfCall
from tersely.instrument.scales.quantizing import Grid, Quantize
from tersely.instrument.scales.shared_inputs import SharedInputs
from tersely.instrument.transforms import chain_of
from tersely.planning.stages.algorithms import make_quantizer
from tersely.quantization.targets import cut_of, grid_of, is_comparable, target_of

_Alike: TypeAlias = tuple[int, str, str, str, int, tuple[int, ...] | None]
"""Identity of the setting, target, kind, module type, channel dimension and size of blocks."""


@attrs.define(eq=False, slots=False)
class QuantizationRun(Run[Quantizer]):
    """A quantization stage in a session.

    Attributes:
        groups: weights that share factors since they read one and the same input.
        given: targets whose scales the user set, which `compress` keeps.
        frozen: those of them that training does not move either.
        padding: what notes the padding of each call while ranges follow training, or None.
        shared_inputs: what is known of a tensor that several modules read.
    """

    groups: list[tuple[BoundTarget, ...]] = attrs.field(factory=list, kw_only=True)
    given: set[BoundTarget] = attrs.field(factory=set, kw_only=True)
    frozen: set[BoundTarget] = attrs.field(factory=set, kw_only=True)
    padding: PaddingOfCall | None = attrs.field(default=None, kw_only=True)
    shared_inputs: SharedInputs = attrs.field(factory=SharedInputs, kw_only=True)
    _steps: dict[BoundTarget, Quantize] = attrs.field(factory=dict, kw_only=True)
    _alike: dict[_Alike, Quantize] = attrs.field(factory=dict, kw_only=True)

    @cached_property
    def _sorted(self) -> tuple[tuple[BoundTarget, ...], ...]:
        # In one pass that asks each setting once: a large model has many targets and few settings.
        derived: list[BoundTarget] = []
        parameters: list[BoundTarget] = []
        activations: list[BoundTarget] = []
        accumulated: dict[int, bool] = {}
        for bound in self.all_bound_targets:
            plan = bound.plan
            key = id(plan.setting)
            if key not in accumulated:
                accumulated[key] = plan.quantization.is_accumulated
            if accumulated[key]:
                derived.append(bound)
            elif plan.kind not in ("input", "output"):
                parameters.append(bound)
            elif not self.is_dynamic(bound):
                activations.append(bound)
        return tuple(derived), tuple(parameters), tuple(activations)

    @cached_property
    def derived(self) -> tuple[BoundTarget, ...]:
        """Biases in units of their accumulator, whose scale follows from two others."""
        return self._sorted[0]

    @cached_property
    def parameters(self) -> tuple[BoundTarget, ...]:
        """The parameters and buffers that have a scale of their own."""
        return self._sorted[1]

    @cached_property
    def activations(self) -> tuple[BoundTarget, ...]:
        """The inputs and outputs that are quantized by one scale for all calls."""
        return self._sorted[2]

    @cached_property
    def bound_targets(self) -> tuple[BoundTarget, ...]:
        """The targets whose modules the algorithm observes: matrices, not vectors."""
        return tuple(one for one in self.parameters if is_matrix(one))

    @property
    def is_calibrated(self) -> bool:
        """Whether the stage makes use of calibration batches."""
        return self.is_observing_modules or not self.given.issuperset(self.activations)

    @property
    def is_optional_calibration(self) -> bool:
        """Whether training provides ranges if calibration never ran."""
        return self.follows_training() is not None and not self.is_observing_modules

    @property
    def is_looking_again(self) -> bool:
        """Whether each `compress` changes weights or inputs, and thus the ranges."""
        return self.is_sequential or self.is_equalizing

    @property
    def is_learning(self) -> bool:
        """Whether the algorithm learns scales."""
        return self.learning is not None

    @property
    def is_equalizing(self) -> bool:
        """Whether the algorithm moves ranges from inputs to weights."""
        return isinstance(self.algorithm, Equalizes)

    def is_dynamic(self, bound: BoundTarget) -> bool:
        """Tell whether an input or output is quantized by each call's own range."""
        return self.is_dynamic_as(self.quantize_step(bound))

    def is_dynamic_as(self, plain: Quantize) -> bool:
        """Tell whether an input or output with a plain step is quantized by each call's own range.

        Args:
            plain: what `quantize_step` returns of it.
        """
        if plain.cut.kind == "token":
            return True
        return self._choosing_per_call is not None and self._choosing_per_call.dynamic

    def is_simulated(self, bound: BoundTarget) -> bool:
        """Tell whether forward computes with quantized values, or they are only observed."""
        return bound.plan.quantization.is_simulated

    def follows_training(self) -> FollowsTraining | None:
        """Return the algorithm when its ranges follow training, else None."""
        return self._training_follower

    def simulating(self) -> Simulates | None:
        """Return the algorithm when it computes quantized values itself, else None."""
        return self._simulating

    # Abilities are looked up once per stage, because the lookup is slow.
    @cached_property
    def _training_follower(self) -> FollowsTraining | None:
        found = self.algorithm
        return found if isinstance(found, FollowsTraining) else None

    @cached_property
    def _simulating(self) -> Simulates | None:
        found = self.algorithm
        return found if isinstance(found, Simulates) else None

    @cached_property
    def _choosing_per_call(self) -> ChoosesPerCall | None:
        found = self.algorithm
        return found if isinstance(found, ChoosesPerCall) else None

    @cached_property
    def _observing_range(self) -> ObservesRange | None:
        found = self.algorithm
        return found if isinstance(found, ObservesRange) else None

    @property
    def has_own_observers(self) -> bool:
        """Whether the algorithm says what observes values, and not the specification."""
        return self._observing_range is not None

    @cached_property
    def learning(self) -> LearnsScales | None:
        """The algorithm when it learns scales, else None."""
        found = self.algorithm
        return found if isinstance(found, LearnsScales) else None

    def grid(self, bound: BoundTarget) -> Grid:
        """Return the values a target can take."""
        return self.quantize_step(bound).grid

    def quantize_step(self, bound: BoundTarget, attribute: str | None = None) -> Quantize:
        """Return the plain step that quantizes a target with the scale in its buffers.

        Args:
            bound: the target.
            attribute: the name under which another holder of a tied parameter has it.
        """
        found = self._steps.get(bound)
        if found is None:
            found = self._steps[bound] = self._shared_step(bound)
        if attribute is None or attribute == bound.plan.target:
            return found
        return attrs.evolve(found, target=attribute)

    def _shared_step(self, bound: BoundTarget) -> Quantize:
        # A large model has few kinds of targets, and the lookups cost more than the step itself.
        plan = bound.plan
        size = None if plan.blocks is None else plan.blocks.size
        key = (id(plan.setting), plan.target, plan.kind, plan.module_type, plan.channel_dim, size)
        found = self._alike.get(key)
        if found is None:
            clip = plan.quantization.is_clipping_gradients or (
                isinstance(self.algorithm, ClipsGradients) and self.algorithm.clip_gradient
            )
            cut = cut_of(bound, self.binding.plan.recipe.stages)
            shared = self.shared_inputs if is_comparable(bound, cut) else None
            found = Quantize(plan.target, grid_of(plan, self.algorithm), cut, clip, shared)
            # A cut that depends on the shape of a sample names its own target in errors.
            if cut.size is None:
                self._alike[key] = found
        return found

    def observer(self, bound: BoundTarget) -> Observer:
        """Return what observes a target's values."""
        if self._observing_range is None:
            return MinMax()
        return self._observing_range.observer(target_of(bound, self.grid(bound)))

    def seen_as(self, bound: BoundTarget) -> QuantizationTarget:
        """Return a target as the algorithm sees it while it observes the target's module."""
        return target_of(bound, self.grid(bound), tensor=bound.raw.detach())

    def learned(self, bound: BoundTarget) -> dict[str, Tensor]:
        """Return what is learned for a target, by name."""
        return learned_of(bound)

    def penalty(self, steps: int) -> Tensor | None:
        """Return what the algorithm adds to the loss, or None.

        Args:
            steps: optimizer steps made so far.
        """
        algorithm: object = self.algorithm
        if not isinstance(algorithm, Penalizes) or not self.stage.is_running(steps):
            return None
        every = [learned_of(bound) for bound in (*self.parameters, *self.activations)]
        learned = [one for one in every if one]
        if not learned:
            return None
        name = self.stage.algorithm
        with ForeignCall(f"{name} failed in penalty()", plugin=name):
            return algorithm.penalty(learned, steps - self.stage.begin)

    def note(self, journal: Journal, *, is_step: bool) -> None:
        """Note what a change may touch."""
        super().note(journal, is_step=is_step)
        journal.note_attributes(self, "given", "frozen")


def is_matrix(bound: BoundTarget) -> bool:
    """Tell whether a parameter multiplies inputs, unlike biases and norms."""
    return len(bound.plan.shape or ()) - bound.plan.has_experts > 1


def start_runs(binding: Binding) -> tuple[QuantizationRun, ...]:
    """Make the algorithms of a plan's quantization stages.

    Args:
        binding: the plan, bound to a model.

    Raises:
        BrokenPluginError: a plugin cannot be imported.
        PluginError: an algorithm cannot be made with its options.
    """
    return tuple(
        QuantizationRun(
            number,
            stage,
            make_quantizer(stage.algorithm, stage.options, place=stage.path),
            binding,
        )
        for number, stage in enumerate(binding.plan.recipe.stages)
        if stage.method == "quantization"
    )


def learned_of(bound: BoundTarget) -> dict[str, Tensor]:
    """Return what is learned for a target, by name.

    Args:
        bound: the target.
    """
    for step in chain_of(bound.module, bound.plan.target):
        if isinstance(step, Learned):
            return step.learned(bound.module)
    return {}
