"""The contract of granularities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import attrs

from tersely.arithmetic.blocks import Blocks, count_blocks, resolve_size
from tersely.arithmetic.numbered import Numbering, NumberingError, renumber
from tersely.contracts.granularity import Granularity
from tersely.contracts.kinds import Method, TargetKind
from tersely.contracts.settings import PruningSetting, QuantizationSetting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.json_value import Json
from tersely.planning.targets.spelling import implementation, understand
from tersely.registry.descriptors import GranularityInfo
from tersely.registry.registry import registry
from tersely.testing.contract import (
    Contract,
    ContractError,
    Kind,
    check_schema,
    expect,
    require,
)
from tersely.testing.models import example_values

Shape = tuple[int, ...]

# Planning divides an input or output with one sample in the batch.
_SHAPES: Mapping[TargetKind, Sequence[Shape]] = {
    "parameter": [(8,), (8, 16), (24, 8), (8, 4, 4), (8, 4, 4, 4), (128, 128)],
    "buffer": [(8,), (8, 16), (128, 128)],
    "input": [(1, 16), (1, 4, 16), (1, 4, 8, 8)],
    "output": [(1, 16), (1, 4, 16), (1, 4, 8, 8)],
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
    def info(self) -> GranularityInfo:
        """The granularity's descriptor."""
        return registry().granularities.info(self.name)

    def check_options_schema(self) -> None:
        """`options` is a closed JSON Schema, and its example values select the granularity."""
        check_schema(self.info.options)
        expect(
            bool(self._values()),
            "its schema has no examples, so nothing can be checked; add examples to values (or to "
            "options, if some are required), or pass values to check_granularity",
        )
        for value in self._values():
            found = understand(value).info
            expect(found is self.info, f"{value!r} selects the granularity {found.name}")
            implementation(value)

    def make_example(self) -> None:
        """Make the granularity with the options, as a config that states them does."""
        self.catalog[self.name](**self.options)

    def use(self) -> None:
        """Divide every shape."""
        for value in self._values():
            list(self._divided(value))

    def check_blocks(self) -> None:
        """Blocks have a size for each dimension; shapes that do not fit raise ValueError."""
        for value in self._values():
            made = [shape for _, shape, _ in self._divided(value)]
            tried = [shape for kind in self.info.target_kinds for shape in _SHAPES[kind]]
            expect(bool(made), f"{value!r} divides none of the shapes that were tried: {tried}")

    def check_determinism(self) -> None:
        """The same shape gives the same blocks."""
        for value in self._values():
            for target, shape, blocks in self._divided(value):
                again = implementation(value).blocks(shape, target)
                where = f"{value!r} on {shape}"
                if blocks.index is not None:
                    expect(
                        again == blocks, f"{where}: a second call returns different block numbers"
                    )
                expect(
                    again == blocks, f"{where}: the first call returns {blocks}, the second {again}"
                )

    def check_scope(self) -> None:
        """A scope consists of whole blocks and keeps no more blocks than it has."""
        for value in self._values():
            for _, shape, blocks in self._divided(value):
                where = f"{value!r} on {shape}"
                if blocks.scope is None:
                    expect(
                        blocks.keep is None,
                        f"{where}: keep is {blocks.keep}, but there is no scope",
                    )
                    continue
                scope, size = resolve_size(blocks.scope, shape), resolve_size(blocks.size, shape)
                fits = all(not outer % inner for outer, inner in zip(scope, size, strict=True))
                expect(fits, f"{where}: scope {list(scope)} cuts blocks of {list(size)}")
                count = math.prod(scope) // math.prod(size)
                keep = blocks.keep
                expect(
                    keep is None or 0 < keep <= count, f"{where}: keeps {keep} of {count} blocks"
                )

    def _values(self) -> Sequence[Json]:
        return self.values or example_values(self.name)

    def _divided(self, value: Json) -> Iterator[tuple[TargetPlan, Shape, Blocks]]:
        granularity = implementation(value)
        for kind in self.info.target_kinds:
            for shape in _SHAPES[kind]:
                method: Method = "quantization" if self.info.is_dynamic else "pruning"
                target = _target(kind, shape, value, method)
                blocks = _blocks(granularity, value, shape, target=target)
                if blocks is not None:
                    yield target, shape, blocks


def _blocks(
    granularity: Granularity, value: Json, shape: Shape, *, target: TargetPlan
) -> Blocks | None:
    where = f"{value!r} on {shape}"
    try:
        blocks = granularity.blocks(shape, target)
    except NumberingError as error:
        raise ContractError(f"{where}: {error}") from error
    except ValueError as error:
        expect(bool(str(error)), f"{where}: raises ValueError without a message")
        return None
    except Exception as error:  # foreign code: any other exception is a finding
        found = f"{type(error).__name__}: {error}"
        raise ContractError(f"{where}: expected Blocks or ValueError, got {found}") from error
    is_blocks = isinstance(blocks, Blocks)
    expect(is_blocks, f"{where}: expected Blocks or ValueError, got {type(blocks).__name__}")
    if blocks.index is not None:
        lengths = list(blocks.index.shape)
        is_whole = lengths == list(shape)
        expect(is_whole, f"{where}: the index has shape {lengths}, expected {list(shape)}")
        # Of an input or output the first dimension counts samples, and one is tried.
        numbers = blocks.index[0] if target.kind in ("input", "output") else blocks.index
        expect(
            not Numbering(renumber(numbers)[0]).shuffles_vector,
            f"{where}: each element of a vector is its own block, but the blocks are not numbered "
            "in the order of the elements",
        )
        return blocks
    scope = blocks.size if blocks.scope is None else blocks.scope
    for name, size in (("size", blocks.size), ("scope", scope)):
        is_sized = len(size) == len(shape) and all(length == -1 or length > 0 for length in size)
        expect(
            is_sized,
            f"{where}: {name} {list(size)}, expected one length for each dimension, positive or -1",
        )
    try:
        count_blocks(blocks.size, shape)
        count_blocks(scope, shape)
    except ValueError:
        return None  # the core rejects it in planning and names the target
    return blocks


def _target(kind: TargetKind, shape: tuple[int, ...], value: Json, method: Method) -> TargetPlan:
    setting = PruningSetting if method == "pruning" else QuantizationSetting
    name = {"input": "_input_", "output": "_output_"}.get(kind, "weight")
    return TargetPlan(
        module="layer",
        target=name,
        kind=kind,
        method=method,
        algorithm="contract",
        setting=setting.of({"granularity": value}),
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
        PluginError: no plugin provides the name.
    """
    require(GranularityContract(name, {}, values))
