"""The contract of granularities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import attrs
import torch

from laconic.algorithms import Granularity
from laconic.blocks import Blocks, count_blocks, expand_blocks, resolve_size, to_blocks
from laconic.planning.granularity import implementation
from laconic.planning.plan import Origin, Setting, TargetPlan
from laconic.registry.descriptors import GranularityInfo, Json, TargetKind
from laconic.registry.registry import registry
from laconic.testing.contract import Contract, ContractError, Kind, expect, require
from laconic.testing.models import example_values

_SHAPES: Mapping[TargetKind, Sequence[tuple[int, ...]]] = {
    "parameter": [(8,), (8, 16), (8, 4, 4), (8, 4, 4, 4)],
    "buffer": [(8,), (8, 16)],
    "input": [(2, 16), (2, 4, 16), (2, 4, 8, 8)],
    "output": [(2, 16), (2, 4, 16), (2, 4, 8, 8)],
}


@attrs.define(eq=False)
class GranularityContract(Contract):
    """What every granularity must meet.

    Attributes:
        values: config values that select it; by default its schema's examples or its name.
    """

    kind: ClassVar[Kind] = "granularities"

    values: Sequence[Json] = ()

    @property
    def granularity_info(self) -> GranularityInfo:
        """The granularity's descriptor."""
        return registry().granularities.info(self.name)

    def check_options_schema(self) -> None:
        """The values that select it are accepted by its schema."""
        expect(
            bool(self._values()),
            "its values schema has no examples, so nothing can be checked; add examples to the "
            "schema or pass values to check_granularity",
        )
        for value in self._values():
            implementation(value)

    def check_blocks(self) -> None:
        """Blocks divide the shape, or ValueError says why they cannot."""
        for value in self._values():
            made = [shape for _, shape, _ in self._divided(value)]
            expect(bool(made), f"{value!r} divides none of the shapes that were tried: {_SHAPES}")

    def check_determinism(self) -> None:
        """The same shape gives the same blocks."""
        for value in self._values():
            for target, shape, blocks in self._divided(value):
                again = implementation(value).blocks(shape, target)
                expect(again == blocks, f"{value!r} on {shape}: {blocks}, then {again}")

    def check_every_element_has_one_block(self) -> None:
        """Reducing to blocks and expanding again reaches every element exactly once."""
        for value in self._values():
            for _, shape, blocks in self._divided(value):
                size = tuple(
                    1 if block == -1 and dim == 0 and length == 0 else block
                    for dim, (block, length) in enumerate(zip(blocks.size, shape, strict=True))
                )
                counts = count_blocks(size, shape)
                numbers = torch.arange(math.prod(counts)).reshape(counts)
                expanded = expand_blocks(numbers, size, shape)
                regrouped = to_blocks(expanded, size)
                expect(
                    bool((regrouped == numbers[..., None]).all()),
                    f"{value!r} on {shape}: expanding and regrouping mixes blocks",
                )

    def check_scope(self) -> None:
        """A scope holds whole blocks, and what is kept in it fits into it."""
        for value in self._values():
            for _, shape, blocks in self._divided(value):
                if blocks.scope is None:
                    expect(blocks.keep is None, f"{value!r}: keep without a scope")
                    continue
                scope, size = resolve_size(blocks.scope, shape), resolve_size(blocks.size, shape)
                fits = all(not outer % inner for outer, inner in zip(scope, size, strict=True))
                expect(fits, f"{value!r} on {shape}: scope {scope} cuts blocks {size}")
                per_scope = math.prod(scope) // math.prod(size)
                keep = blocks.keep
                expect(
                    keep is None or 0 < keep <= per_scope,
                    f"{value!r} on {shape}: keeps {keep} of {per_scope} blocks",
                )

    def _values(self) -> Sequence[Json]:
        return self.values or example_values(self.name)

    def _divided(self, value: Json) -> Iterator[tuple[TargetPlan, tuple[int, ...], Blocks]]:
        granularity: Granularity = implementation(value)
        for kind in self.granularity_info.target_kinds:
            for shape in _SHAPES[kind]:
                target = _target(kind, shape, value)
                try:
                    blocks = granularity.blocks(shape, target)
                except ValueError as error:
                    expect(bool(str(error)), f"{value!r} on {shape}: a ValueError without a text")
                    continue
                except Exception as error:  # foreign code: any other exception is a finding
                    raise ContractError(
                        f"{value!r} on {shape}: expected Blocks or ValueError, got "
                        f"{type(error).__name__}: {error}"
                    ) from error
                try:
                    count_blocks(blocks.size, shape)
                except ValueError:
                    continue  # the core refuses it in planning, with the target's name
                yield target, shape, blocks


def _target(kind: TargetKind, shape: tuple[int, ...], value: Json) -> TargetPlan:
    name = {"input": "_input_", "output": "_output_"}.get(kind, "weight")
    return TargetPlan(
        module="layer",
        target=name,
        kind=kind,
        method="pruning",
        algorithm="contract",
        setting=Setting({"granularity": value}),
        origin=Origin("contract"),
        shape=shape,
        module_type="Linear",
    )


def check_granularity(name: str, *, values: Sequence[Json] = ()) -> None:
    """Run the whole contract of a granularity.

    Args:
        name: its name in the registry.
        values: config values that select it; by default its schema's examples or its name.

    Raises:
        ContractError: lists every check that failed.
        PluginError: nobody provides the name.
    """
    require(GranularityContract(name, {}, values))
