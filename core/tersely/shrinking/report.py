"""Shrunk: the result of `Session.shrink`, as data that prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from tersely.json_value import Json


@attrs.frozen
class Row:
    """A dimension of a tensor that became smaller.

    Attributes:
        module: full name of the module.
        parameter: the parameter's or buffer's name in it.
        dimension: which dimension, from 0.
        before: its size before.
        after: its size now.
    """

    module: str
    parameter: str
    dimension: int
    before: int
    after: int


@attrs.frozen
class Stay:
    """Masked slices of a tensor that could not be removed.

    Attributes:
        target: full name of the parameter.
        dimension: the dimension of the slices.
        count: how many.
        reason: why.
        hint: the change of the config that would free them, or None.
    """

    target: str
    dimension: int
    count: int
    reason: str
    hint: str | None = None

    def __str__(self) -> str:
        hint = f"; what frees them: {self.hint}" if self.hint else ""
        return (
            f"{self.target}: {self.count} masked slices of dimension {self.dimension} stay: "
            f"{self.reason}{hint}"
        )


DEPENDS = "reads values there that depend on the input"
"""Part of the reasons of positions that a reader needs."""

_NORM = (
    "prune the norm and the bias before it with the layer: list the norm's type in op_types beside "
    "the layer's with dependency_groups: auto, or align it"
)

_OF_TENSORS = (
    "take the size from the tensor that forward computes with; where it is a number of a config "
    "that several layers read, mask equally many in each"
)

_HINTS = {
    DEPENDS: "what it is added to or made from has to be masked there as well",
    "reads an input of the model": "leave the columns of the first layers out of the config",
    "cannot be cut": "leave it out of the config: what it meets keeps its size",
    "mixes": "mask what lies along another dimension, or leave the layer out of the config",
    "reduces them": "mask what lies along another dimension, or leave the layer out of the config",
    "picks": "leave the layer out of the config: what is picked has to keep its places",
    "sums over": "mask whole heads: a granularity of as many rows as a head has",
    "rows are looked up": "mask columns of the embedding: granularity: in_channel",
    "no rule for": "leave the layers that it reads out of the config",
    "random numbers": "leave the layers that it reads out of the config",
    "depends on the size": _OF_TENSORS,
    "raises on the small model": _OF_TENSORS,
    "bias of several readers": "give each layer a bias of its own",
    "follows the size": _NORM,
    "read different constants": "align the bias before it with the layer",
    "no output of the example": "leave it out of the config: evaluation does not use it",
    "one has to stay": "a lower ratio: a layer of no channel computes nothing",
    "round_to": "a smaller round_to",
    "different cuts": "mask the same channels of what it combines: dependency_groups: auto",
    "at a padded border": _NORM,
    "has no bias to take it over": _NORM,
    ", made of torch.nn.MultiheadAttention": (
        "write it as separate projections and scaled_dot_product_attention"
    ),
    "requires its full width": "mask whole heads of it as well",
    "chooses experts": "mask the same rows in all experts, with granularity: [-1, 1, -1]",
    "lose equally many": "ask for the same ratio in each part: internal_metric_block",
    "whole heads": "a granularity of whole heads",
    "is an output of the model": "leave the last layer out",
    "masked bias": "leave that bias out of the config",
}


def hint_for(reason: str) -> str | None:
    """Return the change of the config that would free slices that stay, or None.

    Args:
        reason: why they stay.
    """
    return next((hint for part, hint in _HINTS.items() if part in reason), None)


@attrs.frozen
class Absorption:
    """Constants that a reader's bias took over.

    Attributes:
        bias: full name of the bias.
        count: how many constants.
        mode: where that is exact: ``evaluation``, or ``both`` evaluation and training.
    """

    bias: str
    count: int
    mode: str


Change: TypeAlias = tuple[int, int]
"""A count before and after."""


@attrs.frozen(kw_only=True)
class Smaller:
    """A module that became smaller, without the modules in it.

    Attributes:
        module: its full name; empty for the root.
        parameters: the number of its parameters before and after.
        macs: multiply-accumulate operations of the example, before and after.
        bytes: the bytes of its parameters and buffers before and after.
    """

    module: str
    parameters: Change
    macs: Change
    bytes: Change


_COUNTS = ("parameters", "macs", "bytes")


def _spelled(counted: Shrunk | Smaller) -> dict[str, Json]:
    found = {key: getattr(counted, key) for key in _COUNTS}
    return {key: {"before": before, "after": after} for key, (before, after) in found.items()}


def _changes(data: Mapping[str, Json]) -> dict[str, Change]:
    return {key: (data[key]["before"], data[key]["after"]) for key in _COUNTS}


@attrs.frozen(kw_only=True)
class Shrunk:
    """The result of a call of `Session.shrink`.

    Attributes:
        rows: one for each dimension that became smaller.
        stays: masked slices that could not be removed, and why.
        absorbed: the constants that biases took over.
        parameters: the number of parameters before and after.
        macs: multiply-accumulate operations of the example, before and after.
        bytes: the bytes of parameters and buffers before and after.
        modules: the modules that became smaller.
        error: the largest difference of an output from the masked model's, relative to the largest
            output if that is above 1.
        in_float64: whether the outputs were compared in double precision.
        at_other_sizes: whether they were also compared for inputs of other sizes than the
            example's; if not, the model accepts none of those that were tried.
        other_in_training: readers for which something removed is zero in evaluation only: in
            training, a batch norm makes a constant of its own bias there.
    """

    rows: tuple[Row, ...]
    stays: tuple[Stay, ...]
    absorbed: tuple[Absorption, ...]
    parameters: Change
    macs: Change
    bytes: Change
    modules: tuple[Smaller, ...]
    error: float
    in_float64: bool
    at_other_sizes: bool = False
    other_in_training: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        """Return the same as JSON data."""
        return {
            "rows": [attrs.asdict(row) for row in self.rows],
            "stays": [attrs.asdict(stay) for stay in self.stays],
            "absorbed": [attrs.asdict(one) for one in self.absorbed],
            **_spelled(self),
            "modules": [{"module": one.module, **_spelled(one)} for one in self.modules],
            "error": self.error,
            "in_float64": self.in_float64,
            "at_other_sizes": self.at_other_sizes,
            "other_in_training": list(self.other_in_training),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Json]) -> Shrunk:
        """Read back what `to_dict` returned.

        Args:
            data: JSON data.

        Raises:
            KeyError: a part is missing.
            TypeError: a part has fields that this version does not know.
        """
        return cls(
            rows=tuple(Row(**row) for row in data["rows"]),
            stays=tuple(Stay(**stay) for stay in data["stays"]),
            absorbed=tuple(Absorption(**one) for one in data["absorbed"]),
            **_changes(data),
            modules=tuple(
                Smaller(module=one["module"], **_changes(one)) for one in data["modules"]
            ),
            error=data["error"],
            in_float64=data["in_float64"],
            at_other_sizes=data.get("at_other_sizes", False),
            other_in_training=tuple(data.get("other_in_training", ())),
        )

    @property
    def summary(self) -> str:
        """The counts before and after, in one line."""
        return (
            f"parameters {self.parameters[0]:,} -> {self.parameters[1]:,}, MACs {self.macs[0]:,} "
            f"-> {self.macs[1]:,}, bytes {self.bytes[0]:,} -> {self.bytes[1]:,}, largest "
            f"difference {self.error:.2g}"
        )

    def __str__(self) -> str:
        lines = [self.summary]
        for row in self.rows:
            name = f"{row.module}.{row.parameter}" if row.module else row.parameter
            lines.append(f"  {name}: dimension {row.dimension}, {row.before} -> {row.after}")
        for one in self.absorbed:
            lines.append(f"  {one.bias} took over {one.count} constants (exact in {one.mode})")
        for name in self.other_in_training:
            lines.append(f"  {name} reads zeros of what was removed in evaluation alone")
        lines += [f"  {stay}" for stay in self.stays]
        if self.rows and not self.at_other_sizes:
            lines.append("  compared at the sizes of the example alone")
        return "\n".join(lines)
