"""The numbers at the head of a page: quality, bytes, time, operations and parameters, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from tersely.reporting.data import ReportData
from tersely.reporting.measuring.timings import spell_bytes, spell_seconds
from tersely.reporting.printing.table import percent, tabulate_metrics
from tersely.reporting.quantized_size import spell_count

_MEASURES = 2
_DENSE = "dense"


@attrs.frozen
class Headline:
    """One number that people look for first.

    Attributes:
        label: what it is.
        value: the number.
        more: what it was before, or is out of.
    """

    label: str
    value: str
    more: str


def headlines(report: ReportData) -> Iterator[Headline]:
    """Yield the numbers at the head of a report's page, those that it has.

    Args:
        report: the report.
    """
    for measure, values in list(tabulate_metrics(report.metrics).items())[:_MEASURES]:
        yield _quality(measure, values)
    yield from _files(report.files)
    yield from _times(report)
    yield from _macs(report)
    yield from _parameters(report)
    if report.elements and (report.masked or not report.shrinks):
        masked = f"{report.masked:,} of {report.elements:,} masked"
        yield Headline("Sparsity of the pruned weights", percent(report.sparsity), masked)
    size = report.quantized_size
    if size.elements:
        more = f"of float32: {size}, {size.bits_per_weight:.2f} bits each"
        yield Headline("Size of the quantized weights", percent(size.share), more)


def _quality(measure: str, values: Mapping[str, float]) -> Headline:
    moments = list(values)
    first, last = moments[0], moments[-1]
    more = "measured once"
    if len(moments) > 1:
        more = f"{first} {values[first]:.4g}, change {values[last] - values[first]:+.4g}"
    return Headline(f"{measure.capitalize()} {last}".strip(), f"{values[last]:.4g}", more)


def _files(files: Mapping[str, int]) -> Iterator[Headline]:
    results = {name: count for name, count in files.items() if name != _DENSE}
    if not results:
        return
    name = min(results, key=lambda one: results[one])
    more = name
    if files.get(_DENSE):
        share = percent(results[name] / files[_DENSE])
        more = f"{share} of the dense {spell_bytes(files[_DENSE])}: {name}"
    yield Headline("Bytes on disk", spell_bytes(results[name]), more)


def _times(report: ReportData) -> Iterator[Headline]:
    for one in report.benchmarks[:1]:
        dense = next((timing for timing in one if timing.name == _DENSE), None)
        others = [timing for timing in one if not timing.name.startswith(_DENSE)]
        if dense is None or not others:
            continue
        best = min(others, key=lambda timing: timing.ratio)
        title = f", {one.title}" if one.title else ""
        more = f"{best.ratio:.3f} of the dense {spell_seconds(dense.median)}: {best.name}{title}"
        yield Headline("Time of a call", spell_seconds(best.median), more)


def _macs(report: ReportData) -> Iterator[Headline]:
    before, after = report.macs.get("before"), report.macs.get("after")
    if report.shrinks:
        before, after = report.shrinks[0].macs[0], report.shrinks[-1].macs[1]
    if before and after:
        more = "as many as before"
        if after != before:
            more = f"{percent(after / before)} of {spell_count(before)} before"
        yield Headline("Multiply-accumulates of a call", spell_count(after), more)


def _parameters(report: ReportData) -> Iterator[Headline]:
    if not report.model_elements:
        return
    size = report.quantized_size
    parts = []
    if report.shrinks:
        before, after = report.shrinks[0].parameters[0], report.shrinks[-1].parameters[1]
        if before:
            parts.append(f"{percent(after / before)} of {before:,} before")
    elif report.elements or not size.elements:
        parts.append(f"{percent(report.masked / report.model_elements)} of them masked")
    if size.elements:
        share = percent(size.elements / report.model_elements)
        parts.append(f"{share} quantized" if parts else f"{share} of them quantized")
    yield Headline("Parameters in the model", f"{report.model_elements:,}", ", ".join(parts))
