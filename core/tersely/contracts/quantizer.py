"""What a quantizer is: it observes ranges and chooses scales, once, in training or at each call.

An algorithm has an ability when it inherits from its class or lists its name in its descriptor
(see `tersely.contracts.abilities`). `tersely.contracts.quantized_weights` and
`tersely.contracts.quantized_forward` have the other abilities of quantizers, and
`tersely.contracts.pruner` those of pruners.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import attrs
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
        has_float_zero_point: whether zero points may be any finite numbers, as the algorithm
            `UsesFloatZeroPoints` and the type has a zero point.
        has_levels: whether there may be a table of levels, as the algorithm `UsesLevels`.
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
    has_float_zero_point: bool = False
    has_levels: bool = False

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
    as it is, and the scale is chosen again before the tensor is used. In eval mode nothing changes.

    Attributes:
        decay: the share of the old range that stays, in [0, 1).
        start_step: optimizer steps before values are quantized; ranges are observed from the
            first.
        freeze_step: optimizer steps after which ranges and scales stay as they are, or None.
    """

    decay: float
    start_step: int
    freeze_step: int | None


class MergesObservations(Ability):
    """A quantizer whose ``observe_input`` returns what cannot be added up, such as maxima."""

    @abstractmethod
    def merge(self, before: Statistics, part: Statistics) -> Statistics:
        """Return what two parts tell together: two batches, or two processes.

        Args:
            before: what was known.
            part: what `observe_input` returned for one more batch, or what another process knows.
        """


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
