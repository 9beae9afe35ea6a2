"""What runs in a session: each quantization stage's algorithm with everything it has gathered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.ranges import MinMax
from tersely.calibration.watching import Watch, is_observing, is_sequential
from tersely.contracts.quantizer import (
    ChoosesPerCall,
    ClipsGradients,
    Equalizes,
    FollowsTraining,
    LearnsScales,
    Observer,
    ObservesRange,
    Quantizer,
    Simulates,
)
from tersely.document.recipe import Stage
from tersely.engine.binding import Binding, Handle
from tersely.engine.optimizing import make_optimizer
from tersely.instrument.quantizing import Grid, Quantize
from tersely.planning.algorithms import make_quantizer
from tersely.quantization.targets import cut_of, grid_of, target_of


@attrs.define(eq=False, slots=False)
class QuantizationRun:
    """A quantization stage in a session; mutable because it gathers what its algorithm observes.

    Attributes:
        number: index of the stage in the recipe.
        stage: the stage.
        quantizer: the algorithm, made with the stage's options.
        binding: the plan laid over the model.
        observed: target -> what the algorithm observed of its module.
        optimizer: moves what is learned; None when there is nothing, or the user does it.
    """

    number: int
    stage: Stage
    quantizer: Quantizer
    binding: Binding
    observed: dict[Handle, dict[str, Tensor]] = attrs.field(factory=dict)
    optimizer: torch.optim.Optimizer | None = None
    _steps: dict[Handle, Quantize] = attrs.field(factory=dict)

    @cached_property
    def all_handles(self) -> tuple[Handle, ...]:
        """All targets of the stage."""
        return tuple(one for one in self.binding.handles if one.plan.stage == self.number)

    @cached_property
    def derived(self) -> tuple[Handle, ...]:
        """Biases in the terms of their accumulator, whose scale follows from two others."""
        return tuple(one for one in self.all_handles if one.plan.quantization.is_accumulated)

    @cached_property
    def parameters(self) -> tuple[Handle, ...]:
        """The parameters and buffers that have a scale of their own."""
        derived = set(self.derived)
        return tuple(
            one for one in self.all_handles if not one.is_activation and one not in derived
        )

    @cached_property
    def activations(self) -> tuple[Handle, ...]:
        """The inputs and outputs that are quantized by one scale for all calls."""
        return tuple(
            one for one in self.all_handles if one.is_activation and not self.is_dynamic(one)
        )

    @cached_property
    def handles(self) -> tuple[Handle, ...]:
        """The targets whose modules the algorithm observes: matrices, not vectors."""
        return tuple(one for one in self.parameters if is_matrix(one))

    @property
    def algorithm(self) -> Quantizer:
        """The algorithm."""
        return self.quantizer

    @property
    def is_observing_modules(self) -> bool:
        """Whether the algorithm observes modules in calibration."""
        return is_observing(self.quantizer)

    @property
    def is_sequential(self) -> bool:
        """Whether the algorithm wants to be calibrated block by block."""
        return self.is_observing_modules and is_sequential(self.quantizer)

    @property
    def is_calibrated(self) -> bool:
        """Whether the stage makes use of calibration batches."""
        return self.is_observing_modules or bool(self.activations)

    @property
    def is_learning(self) -> bool:
        """Whether the algorithm learns scales."""
        return isinstance(self.quantizer, LearnsScales)

    @property
    def is_equalizing(self) -> bool:
        """Whether the algorithm moves ranges from inputs to weights."""
        return isinstance(self.quantizer, Equalizes)

    def is_dynamic(self, handle: Handle) -> bool:
        """Tell whether an input or output is quantized by each call's own range."""
        if self.quantize_step(handle).cut.kind == "token":
            return True
        return isinstance(self.quantizer, ChoosesPerCall) and self.quantizer.dynamic

    def is_simulated(self, handle: Handle) -> bool:
        """Tell whether forward computes with quantized values, or they are only observed."""
        return handle.plan.quantization.is_simulated

    def following(self) -> FollowsTraining | None:
        """Return the algorithm when its ranges follow training, else None."""
        found = self.quantizer
        return found if isinstance(found, FollowsTraining) else None

    def simulating(self) -> Simulates | None:
        """Return the algorithm when it computes quantized values itself, else None."""
        found = self.quantizer
        return found if isinstance(found, Simulates) else None

    def grid(self, handle: Handle) -> Grid:
        """Return the values a target can take."""
        return self.quantize_step(handle).grid

    def quantize_step(self, handle: Handle, attribute: str | None = None) -> Quantize:
        """Return the plain step that quantizes a target with the scale in its buffers.

        Args:
            handle: the target.
            attribute: the name under which another holder of a tied parameter has it.
        """
        found = self._steps.get(handle)
        if found is None:
            stages = self.binding.plan.recipe.stages
            clip = handle.plan.quantization.is_clipping_gradients or (
                isinstance(self.quantizer, ClipsGradients) and self.quantizer.clip_gradient
            )
            found = self._steps[handle] = Quantize(
                handle.plan.target, grid_of(handle.plan), cut_of(handle, stages), clip
            )
        if attribute is None or attribute == handle.plan.target:
            return found
        return attrs.evolve(found, target=attribute)

    def observer(self, handle: Handle) -> Observer:
        """Return what observes a target's values."""
        if isinstance(self.quantizer, ObservesRange):
            return self.quantizer.observer(target_of(handle, self.grid(handle)))
        return MinMax()

    def watches(self, handles: Iterable[Handle]) -> list[Watch]:
        """Return observers of the modules of some targets."""
        return [
            Watch(
                handle,
                self.quantizer,
                target_of(handle, self.grid(handle), tensor=handle.raw.detach()),
            )
            for handle in handles
        ]

    def forget(self, handles: Iterable[Handle]) -> None:
        """Drop what was observed of some targets."""
        for handle in handles:
            self.observed.pop(handle, None)

    def make_optimizer(self, tensors: Sequence[Tensor]) -> None:
        """Make what moves the learned tensors."""
        self.optimizer = make_optimizer(self.quantizer, tensors)


def is_matrix(handle: Handle) -> bool:
    """Tell whether a parameter multiplies inputs, as biases and norms do not."""
    return len(handle.plan.shape or ()) > 1


def start_runs(binding: Binding) -> tuple[QuantizationRun, ...]:
    """Make the algorithms of a plan's quantization stages.

    Args:
        binding: the plan laid over a model.

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
