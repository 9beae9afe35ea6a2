"""What algorithms see and what they are: the targets handed to them and the protocols they meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import attrs
from torch import Tensor, nn

from tersely.blocks import Blocks
from tersely.planning.plan import TargetPlan


@attrs.frozen(kw_only=True, eq=False)
class PruningTarget:
    """One tensor to rank.

    Attributes:
        plan: what the config says of it.
        tensor: the values to rank, float, the target's shape. For a parameter or buffer the raw
            tensor, owned by the module: read it, never write it. For an input or output the mean
            absolute value over all samples seen in calibration, without the batch dimension.
        blocks: which elements share a decision.
        module: the module that owns the target.
        observed: what the algorithm's ``observe_...`` method returned, summed up over batches or
            steps and over processes; empty when it has none.
        learned: what the algorithm learns for this target, by name; empty when it learns nothing.
    """

    plan: TargetPlan
    tensor: Tensor
    blocks: Blocks
    module: nn.Module
    observed: Mapping[str, Tensor] = attrs.field(factory=dict)
    learned: Mapping[str, Tensor] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        """The target's full name."""
        return self.plan.name


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


# A dataclass, because torch.compile can make one inside of a forward and no frozen attrs class.
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QParams:
    """How one tensor is quantized.

    Attributes:
        scale: shape (blocks along each dimension) or 0-dim, float, value units per integer step.
        zero_point: scale's shape, the integer that stands for zero.
        quant_min: the smallest integer.
        quant_max: the largest integer.
        dtype: the quantized type, such as ``int8``.
        scheme: ``symmetric`` or ``affine``.
        block_size: elements per block, or None for one scale for the tensor.
    """

    scale: Tensor
    zero_point: Tensor
    quant_min: int
    quant_max: int
    dtype: str
    scheme: Literal["symmetric", "affine"]
    block_size: tuple[int, ...] | None = None

    def evolve(self, **changes: object) -> QParams:
        """Return a copy with some fields replaced."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # replace checks


@attrs.frozen(kw_only=True)
class SharedChannels:
    """Parameters that make the same output channels, as on both sides of an addition.

    Attributes:
        parameters: their full names; output channel i of each is removed together with output
            channel i of all.
        runs: equal runs of the channels that have to lose equally many, as for the groups of a
            convolution or the heads of an attention.
        is_tied_to_itself: whether different channels of one parameter also go together, as in a
            packed projection of query, key and value.
    """

    parameters: tuple[str, ...]
    runs: int = 1
    is_tied_to_itself: bool = False


@runtime_checkable
class Pruner(Protocol):
    """A pruning algorithm."""

    def importance(self, target: PruningTarget) -> Tensor:
        """Return scores, larger means keep.

        Args:
            target: the tensor to rank, which must not be modified.

        Returns:
            Scores of the tensor's shape (summed over each block) or of the shape of its blocks.
        """
        ...


@runtime_checkable
class Granularity(Protocol):
    """A granularity."""

    def blocks(self, shape: tuple[int, ...], target: TargetPlan) -> Blocks:
        """Return how a tensor is cut.

        It depends on the shape, the setting and the module type alone: planning asks once for all
        targets that agree in these.

        Args:
            shape: the tensor's shape; for an input or output, with the batch in dimension 0.
            target: what the config says of it.

        Raises:
            ValueError: the shape cannot be cut this way; the text says why.
        """
        ...


@runtime_checkable
class Quantizer(Protocol):
    """A quantization algorithm."""

    def choose(self, low: Tensor, high: Tensor, target: QuantizationTarget) -> QParams:
        """Return scale and zero point for an observed range.

        Args:
            low: shape (blocks along each dimension), the smallest value seen.
            high: the same shape, the largest value seen.
            target: the tensor to quantize.
        """
        ...


@runtime_checkable
class DependencyTracer(Protocol):
    """Finds out which parameters share output channels."""

    def trace(
        self, model: nn.Module, example_inputs: Any, *, parameters: Sequence[str]
    ) -> Sequence[SharedChannels]:
        """Return what parameters share, by running the model once.

        Args:
            model: the model, of which nothing may change.
            example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword
                arguments, on the model's device.
            parameters: full names of the parameters to place.

        Returns:
            Groups that hold each of the parameters once; a parameter that shares its channels with
            no other is a group of its own.

        Raises:
            PlanError: the model cannot be traced, or parameters share channels in a way that
                ``SharedChannels`` cannot say; names the module or the operation.
        """
        ...
