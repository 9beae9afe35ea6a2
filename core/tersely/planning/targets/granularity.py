"""From a granularity as a document spells it to the blocks of one target (rules G1 to G4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import attrs

from tersely.arithmetic.blocks import (
    Blocks,
    channel_blocks,
    count_blocks,
    element_blocks,
    resolve_size,
    tensor_blocks,
)
from tersely.arithmetic.numbered import Numbering, NumberingError, renumber
from tersely.contracts.experts import blocks_of_experts, plan_of_expert
from tersely.contracts.kinds import TargetKind
from tersely.contracts.settings import DEFAULT_GRANULARITY
from tersely.contracts.target_plan import TargetPlan
from tersely.errors import BrokenPluginError
from tersely.json_value import Json
from tersely.planning.targets.spelling import article, implementation, shown, understand
from tersely.registry.descriptors import GranularityInfo, PrunerInfo, QuantizerInfo
from tersely.registry.registry import registry

BuiltIn = Literal["element", "row", "output_channel", "tensor"]

BUILT_IN: tuple[BuiltIn, ...] = ("element", "row", "output_channel", "tensor")
"""Values of a descriptor's ``default_granularity`` that need no granularity plugin."""


@attrs.frozen(eq=False)
class InForce:
    """The granularity that a value asks for, with ``default`` replaced by what it means.

    Ask it and its descriptor what it does; its spelling does not matter.

    Attributes:
        value: as the document or the algorithm's descriptor spells it.
        built_in: which of the core's own it is, or None.
        info: its plugin's descriptor, or None for one of the core's own.
    """

    value: Json
    built_in: BuiltIn | None = None
    info: GranularityInfo | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the tensor is one block."""
        return self.built_in == "tensor"

    @property
    def is_by_channel(self) -> bool:
        """Whether an input or output is cut into its channels, whatever its other lengths are."""
        return self.built_in == "output_channel" or (
            self.info is not None and self.info.is_by_channel
        )

    @property
    def is_dynamic(self) -> bool:
        """Whether each call's tensor is divided separately, sample by sample."""
        return self.info is not None and self.info.is_dynamic


def meant(value: Json, info: PrunerInfo | QuantizerInfo) -> InForce:
    """Return the granularity that a value asks for, whether or not a target can have it.

    Args:
        value: the granularity as the document spells it.
        info: the algorithm's descriptor, for what ``default`` means.

    Raises:
        ValueError: the granularity is unknown; the text says what to write instead.
    """
    if value == DEFAULT_GRANULARITY:
        value = info.default_granularity
        built_in = next((one for one in BUILT_IN if one == value), None)
        if built_in is not None:
            return InForce(value, built_in)
    return InForce(value, None, understand(value).info)


def in_force(value: Json, kind: TargetKind, info: PrunerInfo | QuantizerInfo) -> InForce:
    """Return the granularity that a value asks for, where a target can have it.

    Args:
        value: the granularity as the document spells it.
        kind: what the target is.
        info: the algorithm's descriptor, for what ``default`` means and what it supports.

    Raises:
        ValueError: the granularity is unknown or not supported here; the text says what to write
            instead.
    """
    is_default = value == DEFAULT_GRANULARITY
    found = meant(value, info)
    if found.info is None:
        return found
    value = found.value
    if not is_default and not is_supported(found.info, info):
        raise ValueError(
            f"{info.name} does not support granularity {shown(value)}; it supports "
            f"{', '.join([DEFAULT_GRANULARITY, *(info.granularities or ())])}"
        )
    kinds = found.info.target_kinds
    if kind not in kinds:
        raise ValueError(
            f"granularity {shown(value)} cannot divide {article(kind)} {kind}, only: "
            f"{', '.join(kinds)}"
            + ("; write per_channel instead" if kind in ("input", "output") else "")
        )
    return found


def is_supported(granularity: GranularityInfo, algorithm: PrunerInfo | QuantizerInfo) -> bool:
    """Tell whether an algorithm declares to support a granularity, by its short or qualified name.

    Args:
        granularity: its descriptor.
        algorithm: the algorithm's descriptor.
    """
    catalog = registry().granularities
    return algorithm.granularities is None or any(
        name == granularity.name or (name in catalog and catalog.info(name) is granularity)
        for name in algorithm.granularities
    )


def divide(
    value: Json, target: TargetPlan, shape: tuple[int, ...], info: PrunerInfo | QuantizerInfo
) -> Blocks:
    """Cut one target into blocks.

    Args:
        value: the granularity as the document spells it.
        target: the target, whose shape may still be unknown in the plan.
        shape: the tensor's shape; for an input or output with the batch in dimension 0.
        info: the algorithm's descriptor, for what ``default`` means and what it supports.

    Returns:
        Blocks that divide the shape.

    Raises:
        ValueError: the granularity is unknown, not supported here, or does not divide the shape;
            the text says what to write instead.
        BrokenPluginError: the granularity's plugin fails.
    """
    found = in_force(value, target.kind, info)
    if target.has_experts:
        return _divide_experts(value, target, shape, info)
    if found.built_in is not None:
        return _built_in(found.built_in, target, shape)
    value = found.value
    granularity = implementation(value)
    try:
        blocks = granularity.blocks(shape, target)
    except NumberingError as error:
        raise _misnumbered(value, target, shape, error) from error
    except ValueError:
        raise
    except Exception as error:  # foreign code may raise anything
        raise BrokenPluginError(
            f"granularity {shown(value)} failed on {target.name} of shape {list(shape)}: "
            f"{type(error).__name__}: {error}",
            plugin=understand(value).name,
            target=target.name,
        ) from error
    if not isinstance(blocks, Blocks):
        raise BrokenPluginError(
            f"granularity {shown(value)} returned {type(blocks).__name__} for {target.name} of "
            f"shape {list(shape)}, expected tersely.Blocks",
            plugin=understand(value).name,
            target=target.name,
        )
    if isinstance(blocks.size, Numbering):
        _check_numbering(blocks.size, target, shape, value)
    else:
        _check(blocks, shape, value)
    return blocks


def _check_numbering(
    numbering: Numbering, target: TargetPlan, shape: tuple[int, ...], value: Json
) -> None:
    try:
        count_blocks(numbering, shape)
    except ValueError as error:
        raise _misnumbered(value, target, shape, error) from None
    is_activation = target.kind in ("input", "output")
    if target.method == "quantization" and is_activation:
        raise ValueError(
            f"granularity {shown(value)} has numbered blocks, but scales of inputs and outputs "
            f"need rectangular blocks; write default or per_channel for {target.target}"
        )
    of_sample = Numbering(renumber(numbering.numbers[0])[0]) if is_activation else numbering
    if of_sample.shuffles_vector:
        raise ValueError(
            f"granularity {shown(value)} makes each element of a vector a block, but does not "
            "number the blocks in the order of the elements, so values per block and per element "
            "could be confused; number them in that order"
        )
    if target.expert is not None:
        raise ValueError(
            f"granularity {shown(value)} has numbered blocks, but experts stacked in one parameter "
            f"need rectangular blocks; write another granularity for {target.target}"
        )


def _misnumbered(
    value: Json, target: TargetPlan, shape: tuple[int, ...], error: ValueError
) -> BrokenPluginError:
    # The plugin's fault, whatever the config says: a shape that it cannot cut it would refuse.
    return BrokenPluginError(
        f"granularity {shown(value)} returned no blocks for {target.name} of shape {list(shape)}: "
        f"{error}",
        plugin=understand(value).name,
        target=target.name,
    )


def _divide_experts(
    value: Json, target: TargetPlan, shape: tuple[int, ...], info: PrunerInfo | QuantizerInfo
) -> Blocks:
    try:
        blocks = divide(value, plan_of_expert(target, 0), shape[1:], info)
    except ValueError as error:
        raise ValueError(
            f"{error} (each of its {shape[0]} experts is divided in the same way)"
        ) from None
    return blocks_of_experts(blocks, target.method)


def _built_in(value: BuiltIn, target: TargetPlan, shape: tuple[int, ...]) -> Blocks:
    rank = len(shape)
    is_activation = target.kind in ("input", "output")
    if value == "tensor" or rank == 0:
        return tensor_blocks(rank)
    if value == "element":
        # Samples share one decision: a mask or scale cannot depend on who else is in the batch.
        return Blocks((-1, *(1,) * (rank - 1))) if is_activation else element_blocks(rank)
    if is_activation:
        return channel_blocks(rank, target.channel_dim if rank > 1 else 0)
    groups = target.groups if target.method == "quantization" and value != "row" else 1
    channels = output_blocks(shape, min(target.output_dim, rank - 1), groups=groups)
    # A row: elements decide alone, and the ratio is met in every output channel.
    return Blocks((1,) * rank, scope=channels.size) if value == "row" else channels


def output_blocks(shape: Sequence[int], dim: int, *, groups: int = 1) -> Blocks:
    """Return one block for each output channel of a weight.

    Args:
        shape: the weight's shape.
        dim: the dimension that counts output channels.
        groups: how often they repeat along dimension 0; as many runs of it have channels of their
            own, in the order of the outputs.
    """
    blocks = channel_blocks(len(shape), dim)
    is_repeated = groups > 1 and dim % len(shape) != 0 and shape[0] % groups == 0
    return Blocks((shape[0] // groups, *blocks.size[1:])) if is_repeated else blocks


def _check(blocks: Blocks, shape: tuple[int, ...], value: Json) -> None:
    try:
        count_blocks(blocks.size, shape)
        if blocks.scope is not None:
            scope = resolve_size(blocks.scope, shape)
            size = resolve_size(blocks.size, shape)
            if any(outer % inner for outer, inner in zip(scope, size, strict=True)):
                raise ValueError(
                    f"its scope {list(scope)} is not a multiple of its block {list(size)}"
                )
            count_blocks(blocks.scope, shape)
            inside = math.prod(scope) // math.prod(size)
            if blocks.keep is not None and not 0 < blocks.keep <= inside:
                raise ValueError(f"it keeps {blocks.keep} of every {inside} blocks")
        elif blocks.keep is not None:
            raise ValueError(f"it keeps {blocks.keep} blocks, but has no scope to count them in")
    except ValueError as error:
        raise ValueError(f"granularity {shown(value)}: {error}") from None
