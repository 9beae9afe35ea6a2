"""What a quantizer may do besides choosing scales: observe, follow, learn, simulate, solve.

An algorithm has an ability when it inherits from its class or lists its name in its descriptor
(see `tersely.contracts.abilities`). `tersely.contracts.pruner` has those of pruners.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.ranges import Statistics
from tersely.arithmetic.scales import choose_qparams
from tersely.contracts.abilities import Ability
from tersely.contracts.target_plan import TargetPlan


@attrs.frozen(kw_only=True, eq=False)
class QuantizationTarget:
    """One tensor to quantize.

    Attributes:
        plan: what the config says of it.
        quant_min: the smallest integer.
        quant_max: the largest integer.
        dtype: the quantized type as written, such as ``int8``.
        scheme: ``symmetric`` or ``affine``.
        blocks: which elements share a scale.
        module: the module that owns the target.
        tensor: the values to quantize for a parameter or buffer, masked as they will be deployed;
            None for an input or output.
        observed: what the algorithm's ``observe_input`` returned, summed up over batches and
            processes; empty when it has none.
        statistics: what the target's observer gathered of its values.
    """

    plan: TargetPlan
    quant_min: int
    quant_max: int
    dtype: str
    scheme: Literal["symmetric", "affine"]
    blocks: Blocks
    module: nn.Module
    tensor: Tensor | None = None
    observed: Mapping[str, Tensor] = attrs.field(factory=dict)
    statistics: Mapping[str, Tensor] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        """The target's full name."""
        return self.plan.name

    def evolve(self, **changes: object) -> QuantizationTarget:
        """Return a copy with some fields replaced."""
        return attrs.evolve(self, **changes)  # type: ignore[arg-type]  # attrs checks the names


@runtime_checkable
class Quantizer(Protocol):
    """A quantization algorithm; without ``choose`` it is `tersely.choose_qparams` that chooses."""

    def choose(self, low: Tensor, high: Tensor, target: QuantizationTarget) -> QParams:
        """Return scale and zero point for an observed range.

        Args:
            low: shape (blocks along each dimension), the smallest value seen.
            high: the same shape, the largest value seen.
            target: the tensor to quantize.
        """
        ...


@runtime_checkable
class Observer(Protocol):
    """Gathers statistics of values, and later makes a range of them. It has no state itself."""

    def observe(self, values: Tensor, size: tuple[int, ...]) -> Statistics:
        """Return what one batch tells.

        Args:
            values: any shape, float, finite or not, detached and not empty; never modified.
            size: elements per block, one integer per dimension of ``values``, -1 = the whole
                dimension.
        """
        ...

    def merge(self, before: Statistics, batch: Statistics) -> Statistics:
        """Return what is known after one more batch.

        Args:
            before: what was known.
            batch: what `observe` returned for the batch.
        """
        ...

    def join(self, parts: Sequence[Statistics]) -> Statistics:
        """Return what all processes know together; every process gets the same parts.

        Args:
            parts: what each process knows, in the order of ranks.
        """
        ...

    def range(self, statistics: Statistics, target: QuantizationTarget) -> tuple[Tensor, Tensor]:
        """Return the range to quantize.

        Args:
            statistics: everything that is known.
            target: the tensor to quantize.

        Returns:
            Low and high, each of shape (blocks along each dimension), float.
        """
        ...


class ObservesRange(Ability):
    """A quantizer with an observer of its own; the others get the smallest and largest value."""

    @abstractmethod
    def observer(self, target: QuantizationTarget) -> Observer:
        """Return the observer of one target's values.

        Args:
            target: the target, without statistics.
        """


class FollowsTraining(Ability):
    """A quantizer whose ranges follow the values while the model trains.

    At each training forward the range becomes ``decay * old + (1 - decay) * new``, the first one
    as it is, and the scale is chosen anew before the tensor is used. In eval mode nothing moves.

    Attributes:
        decay: the share of the old range that stays, in [0, 1).
        start_step: optimizer steps before values are quantized; ranges are observed from the
            first.
        freeze_step: optimizer steps after which ranges and scales stay as they are, or None.
    """

    decay: float
    start_step: int
    freeze_step: int | None


class Simulates(Ability):
    """A quantizer that computes quantized values in its own way."""

    @abstractmethod
    def simulate(self, value: Tensor, qparams: QParams, target: QuantizationTarget) -> Tensor:
        """Return the values that forward computes with, differentiable.

        Runs in every forward, also under ``torch.compile``: tensor operations only, no branch on
        values.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: scale and zero point in force.
            target: what is quantized; ``tensor`` is None.

        Returns:
            ``value``'s shape and dtype.
        """

    @abstractmethod
    def integers(
        self, value: Tensor, qparams: QParams, target: QuantizationTarget
    ) -> tuple[Tensor, QParams]:
        """Return the integers behind simulated values, and how they are read.

        Args:
            value: the tensor, masked.
            qparams: scale and zero point in force.
            target: what is quantized.

        Returns:
            Integers of ``value``'s shape and the parameters with which
            ``(integers - zero_point) * scale`` is what `simulate` returns, exactly.
        """


class LearnsScales(Ability):
    """A quantizer that learns scales, or zero points too, while the user trains."""

    @abstractmethod
    def start(self, qparams: QParams, target: QuantizationTarget) -> Mapping[str, Tensor]:
        """Return the initial values of what is learned, float, by name.

        Args:
            qparams: what `choose` chose for the observed range.
            target: the target with its statistics; a parameter's with its tensor.
        """

    @abstractmethod
    def meaning(self, qparams: QParams, learned: Mapping[str, Tensor]) -> QParams:
        """Return the parameters that what is learned stands for.

        The scale is positive and finite and the zero point an integer in the range, whatever the
        optimizer did.

        Args:
            qparams: as in `start`.
            learned: what is learned, as it is now.
        """

    @abstractmethod
    def learned_values(
        self,
        value: Tensor,
        qparams: QParams,
        learned: Mapping[str, Tensor],
        target: QuantizationTarget,
    ) -> Tensor:
        """Return the values that forward computes with; gradients reach what is learned.

        Runs in every forward, also under ``torch.compile``. Its values are those of
        `tersely.fake_quantize` with `meaning`.

        Args:
            value: the tensor, masked, any float dtype.
            qparams: as in `start`.
            learned: what is learned.
            target: what is quantized; ``tensor`` is None.
        """


class OptimizesByName(Ability):
    """A quantizer that moves what it learns under one name unlike what it learns under another."""

    @abstractmethod
    def named_optimizer(self, tensors: Mapping[str, Sequence[Tensor]]) -> torch.optim.Optimizer:
        """Return an optimizer of everything that is learned.

        Args:
            tensors: name -> what the algorithm's ``start`` returned under it, for all targets;
                sorted by name.
        """


@attrs.frozen(eq=False)
class QuantizedWeight:
    """What a quantizer that changes weights found for one target.

    Attributes:
        tensor: the new values, the target's shape; quantized with ``qparams`` and back they are
            what the algorithm computed.
        qparams: scale and zero point.
        input_scale: None, or one factor for each input channel, shape (inputs,): ``tensor`` is in
            terms of inputs that are divided by it.
    """

    tensor: Tensor
    qparams: QParams
    input_scale: Tensor | None = None


class SolvesWeights(Ability):
    """A quantizer that changes weights so that what they compute stays close.

    With `ObservesInputs` it sees the inputs of the target's module in calibration, and with
    `Sequential` block by block.
    """

    @abstractmethod
    def solve(self, target: QuantizationTarget) -> QuantizedWeight | None:
        """Return new values and how they are quantized, or None to quantize as they are.

        Args:
            target: the target with its tensor, statistics and observations; nothing of it may be
                modified.

        Raises:
            ValueError: the target does not suit the algorithm; the text says what to do.
        """


class ChangesAfterStep(Ability):
    """A quantizer that changes parameters whenever the user calls ``session.step()``."""

    @abstractmethod
    def after_step(self, tensor: Tensor, target: QuantizationTarget) -> None:
        """Change a parameter that the optimizer has just moved.

        Runs without gradients.

        Args:
            tensor: the raw parameter, the user's own, changed in place.
            target: what is quantized; its ``tensor`` is None.
        """


class CorrectsBias(Ability):
    """A quantizer that makes up, in the bias, for what rounding a weight shifts on average.

    It sees the inputs of the weight's module with `ObservesInputs`.
    """

    @abstractmethod
    def bias_correction(self, target: QuantizationTarget, quantized: Tensor) -> Tensor:
        """Return what is to be added to the bias of the target's module.

        Args:
            target: the weight as it was, masked, with its observations.
            quantized: the weight as it is computed with, the target's shape.

        Returns:
            Shape (outputs,), the tensor's dtype, output units.
        """


class Equalizes(Ability):
    """A quantizer that multiplies weights by a factor for each input channel.

    The inputs are divided by it, so that without rounding nothing changes. Targets that multiply
    one and the same input have to share the factors.
    """

    @abstractmethod
    def input_scales(self, targets: Sequence[QuantizationTarget]) -> Tensor:
        """Return the factors for targets that read the same input.

        Args:
            targets: weights with their tensors and observations, at least one; nothing of them
                may be modified.

        Returns:
            Shape (inputs,), float, positive and finite.
        """

    @abstractmethod
    def solve_scaled(self, target: QuantizationTarget, input_scale: Tensor) -> QuantizedWeight:
        """Return one target times its factors, and how it is quantized.

        Args:
            target: the weight with its tensor, not yet multiplied, and its observations.
            input_scale: what `input_scales` returned.
        """


class MergesObservations(Ability):
    """A quantizer whose ``observe_input`` returns what cannot be added up, such as maxima."""

    @abstractmethod
    def merge(self, before: Statistics, part: Statistics) -> Statistics:
        """Return what two parts tell together: two batches, or two processes.

        Args:
            before: what was known.
            part: what `observe_input` returned for one more batch, or what another process knows.
        """


class ClipsGradients(Ability):
    """A quantizer that passes no gradient where a value was clamped.

    Attributes:
        clip_gradient: False, perhaps by an option, where the gradient passes.
    """

    clip_gradient: bool = True


class ChoosesPerCall(Ability):
    """A quantizer that chooses scales of inputs and outputs at every call, from its own values.

    Attributes:
        dynamic: False, perhaps by an option, for scales that calibration chooses.
    """

    dynamic: bool = True


Choose: TypeAlias = Callable[[Tensor, Tensor, QuantizationTarget], QParams]
"""From the lowest and highest value of each block and the target to scale and zero point."""


def choose_of(quantizer: object) -> Choose:
    """Return how a quantizer chooses: its ``choose``, or the specification's arithmetic.

    Args:
        quantizer: the algorithm.
    """
    found: Choose = getattr(quantizer, "choose", choose_qparams)
    return found
