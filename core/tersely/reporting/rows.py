"""The parts of a report: targets, remarks, moments of its history, layers compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from tersely.reporting.quantized_size import stored_bits

BINS = 24
"""How many intervals of equal width a histogram has."""


def _numbers(values: list[int] | tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)


@attrs.frozen(kw_only=True)
class ReportRow:
    """One target of one method.

    Attributes:
        module: the module's name; empty for the root.
        target: the target's name.
        kind: parameter, buffer, input or output.
        method: pruning, quantization or distillation.
        algorithm: the algorithm's name.
        granularity: the granularity as it was written; of a quantized target what it means.
        blocks: elements per block, one integer per dimension, or None.
        shape: the target's shape, without the batch for an input or output, or None.
        elements: how many elements it has, or None when its shape is not known.
        masked: how many of them are masked, or None when the method does not mask.
        request: what the config asks for, as words.
        requested: the sparsity it asks of this target alone, or None.
        sparsity: masked / elements, or None.
        missed: whether ``sparsity`` is not what was requested.
        dtype: the quantized type, or empty when the method does not quantize.
        scheme: ``symmetric`` or ``affine``, or empty.
        scales: how many scales are in force, or None.
        scale_low: the smallest of them, value units per integer step.
        scale_high: the largest of them.
        dynamic: whether scales are computed at every call.
        observed_only: whether ranges are observed and nothing is quantized.
    """

    module: str
    target: str
    kind: str
    method: str
    algorithm: str
    granularity: str
    blocks: tuple[int, ...] | None = attrs.field(default=None, converter=_numbers)
    shape: tuple[int, ...] | None = attrs.field(default=None, converter=_numbers)
    elements: int | None = None
    masked: int | None = None
    request: str = ""
    requested: float | None = None
    sparsity: float | None = None
    missed: bool = False
    dtype: str = ""
    scheme: str = ""
    scales: int | None = None
    scale_low: float | None = None
    scale_high: float | None = None
    dynamic: bool = False
    observed_only: bool = False

    @property
    def name(self) -> str:
        """The full name: ``module.target``, or the target alone for the root."""
        return f"{self.module}.{self.target}" if self.module else self.target

    @property
    def is_stored(self) -> bool:
        """Whether it is a parameter or buffer; others are as large as a batch makes them."""
        return self.kind in ("parameter", "buffer")

    @property
    def bits(self) -> int | None:
        """How many bits the quantized tensor takes with its scales, or None when it is none."""
        if not self.is_stored or self.scales is None or self.observed_only:
            return None
        # The scale of a sum of products is the product of two others and is not stored.
        scales = 0 if self.dtype == "int32" else self.scales
        return stored_bits(
            self.dtype, elements=self.elements or 0, scales=scales, affine=self.scheme == "affine"
        )


@attrs.frozen(kw_only=True)
class Remark:
    """Something in the plan that its author should know.

    Attributes:
        kind: unmatched, shadowed, skipped, hint, progress or factors.
        text: the finding as a sentence.
    """

    kind: Literal["unmatched", "shadowed", "skipped", "hint", "progress", "factors"]
    text: str


@attrs.frozen(kw_only=True)
class Moment:
    """One entry of the sparsity history.

    Attributes:
        step: the optimizer step, counted from attach.
        event: what happened, such as ``compress`` or ``update``.
        sparsity: masked fraction of all pruned elements right after it.
    """

    step: int
    event: str
    sparsity: float


def _counts(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


@attrs.frozen(kw_only=True)
class Layer:
    """A module with targets, compared with the same module of the dense model.

    Attributes:
        module: its full name; empty for the root.
        kind: its class name.
        signal_to_noise: of its outputs, in decibels; None where it was not called, or where its
            shapes are others now, and infinity, stored as None with ``is_exact``, for equal ones.
        is_exact: whether its outputs are those of the dense module.
        weight: the target whose values are counted, or empty.
        low: the smallest value before and after.
        high: the largest one.
        before: how many values of the dense weight are in each of 24 intervals from low to high.
        after: the same of the weight that takes effect, without the values that are zero.
        why: why it could not be compared, or empty.
    """

    module: str
    kind: str
    signal_to_noise: float | None = None
    is_exact: bool = False
    weight: str = ""
    low: float = 0.0
    high: float = 0.0
    before: tuple[int, ...] = attrs.field(default=(), converter=_counts)
    after: tuple[int, ...] = attrs.field(default=(), converter=_counts)
    why: str = ""
