"""The data of a report: rows, remarks and totals, without the ways to print and write it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from tersely.json_value import Json
from tersely.reporting.measuring.timings import Benchmark
from tersely.reporting.quantized_size import QuantizedSize
from tersely.reporting.rows import Layer, Moment, Remark, ReportRow
from tersely.shrinking.report import Shrunk


@attrs.frozen(kw_only=True)
class ReportData:
    """What a session did to a model; `tersely.reporting.report` prints and writes it.

    Attributes:
        rows: one for each target and method, in the plan's order.
        warnings: what went differently than requested; empty when all is well.
        remarks: what the plan noticed.
        metrics: name -> value; names such as ``before`` or ``after.accuracy`` start with the
            moment of the measurement.
        history: how the sparsity grew.
        shrinks: what each call of `Session.shrink` removed.
        files: file of the result, or ``dense`` for the model before -> bytes on disk.
        benchmarks: what was measured at the end of a job.
        layers: what became of each module with targets, where a job has inputs to compare it with.
        macs: ``before`` and ``after`` -> multiply-accumulate operations of the example inputs.
        recipe: the recipe as it was written.
        versions: tersely, torch and every plugin that took part -> version.
        model_elements: how many elements all parameters of the model have, or None.
    """

    rows: tuple[ReportRow, ...]
    warnings: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    metrics: Mapping[str, float] = attrs.field(factory=dict)
    history: tuple[Moment, ...] = ()
    shrinks: tuple[Shrunk, ...] = ()
    files: Mapping[str, int] = attrs.field(factory=dict)
    benchmarks: tuple[Benchmark, ...] = ()
    layers: tuple[Layer, ...] = ()
    macs: Mapping[str, int] = attrs.field(factory=dict)
    recipe: Mapping[str, Json] = attrs.field(factory=dict)
    versions: Mapping[str, str] = attrs.field(factory=dict)
    model_elements: int | None = None

    @property
    def elements(self) -> int:
        """How many elements the pruned parameters and buffers have."""
        return sum(row.elements or 0 for row in self._stored_rows())

    @property
    def masked(self) -> int:
        """How many of them are masked."""
        return sum(row.masked or 0 for row in self._stored_rows())

    @property
    def sparsity(self) -> float:
        """Share of them that is masked; 0 when nothing is pruned."""
        return self.masked / self.elements if self.elements else 0.0

    @property
    def quantized_size(self) -> QuantizedSize:
        """How much the quantized parameters and buffers take, as integers and scales."""
        sizes = [(row.elements or 0, row.bits) for row in self.rows if row.bits is not None]
        return QuantizedSize(
            elements=sum(elements for elements, _ in sizes), bits=sum(bits for _, bits in sizes)
        )

    def rows_of(self, method: str) -> tuple[ReportRow, ...]:
        """Return the rows of one method.

        Args:
            method: pruning, quantization or distillation.
        """
        return tuple(row for row in self.rows if row.method == method)

    def _stored_rows(self) -> list[ReportRow]:
        # An activation has as many elements as a batch gives it, so it is in no total.
        return [row for row in self.rows if row.masked is not None and row.is_stored]
