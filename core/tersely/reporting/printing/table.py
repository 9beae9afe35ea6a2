"""A report as plain tables and lines, for terminals and log files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import attrs

from tersely.reporting.data import ReportData
from tersely.reporting.printing.removals import removals, stay_lines
from tersely.reporting.quantized_size import spell_count
from tersely.reporting.rows import ReportRow
from tersely.shrinking.report import Shrunk, Smaller
from tersely.text_table import Column, TextTable, boxed

_ROWS = 400  # a longer table is of no use; to_dict() has all rows
_MOMENTS = ("before", "trained", "compressed", "after")


@attrs.frozen
class Line:
    """A line of a printed report.

    Attributes:
        text: what it says.
        label: what it begins with, or nothing.
        kind: a terminal shows each kind in a style of its own.
    """

    text: str
    label: str = ""
    kind: Literal["warning", "remark", "versions", "plain"] = "plain"


def report_text(report: ReportData) -> str:
    """Return the report as plain text without colours.

    Args:
        report: what to print.
    """
    lines: list[str] = []
    for part in report_parts(report):
        lines.extend(boxed(part) if isinstance(part, TextTable) else [part.label + part.text])
    return "\n".join(lines)


def report_parts(report: ReportData) -> Iterator[Line | TextTable]:
    """Yield what a printed report is made of, from top to bottom.

    Args:
        report: what to print.
    """
    yield from (Line(warning, "WARNING ", "warning") for warning in report.warnings)
    yield from measured_tables(report)
    for method, make in (("pruning", _pruned), ("quantization", _quantized)):
        rows = report.rows_of(method)
        if rows or (method == "pruning" and not report.rows):
            yield make(report, rows[:_ROWS])
        if len(rows) > _ROWS:
            yield Line(f"... and {len(rows) - _ROWS} more (report.json has them all)")
    compared = report.rows_of("distillation")
    if compared:
        yield _compared(compared[:_ROWS])
    for shrunk in report.shrinks:
        yield _removed(shrunk)
        yield from (Line(text, kind="remark") for text in stay_lines(shrunk.stays))
    if report.metrics:
        yield _metrics(report.metrics)
    yield from (Line(remark.text, f"{remark.kind}: ", "remark") for remark in report.remarks)
    if report.versions:
        versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        yield Line(versions, kind="versions")


def measured_tables(report: ReportData) -> Iterator[TextTable]:
    """Yield the sizes of files, and the benchmarks.

    Args:
        report: the report.
    """
    if report.files:
        yield _files(report.files)
    yield from (one.table() for one in report.benchmarks)


def split_metric(name: str) -> tuple[str, str]:
    """Return the moment and the measure that a metric's name holds.

    Args:
        name: such as ``before``, ``after.accuracy`` or ``size``.

    Returns:
        Moment and measure; the moment is empty for a name without one, the measure is ``score``
        for a bare moment.
    """
    moment, dot, measure = name.partition(".")
    if moment not in _MOMENTS:
        return "", name
    return moment, measure if dot else "score"


def tabulate_metrics(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return measure -> moment -> value, in the order of measurement.

    Args:
        metrics: a report's metrics.
    """
    table: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        moment, measure = split_metric(name)
        table.setdefault(measure, {})[moment] = value
    return table


def percent(fraction: float | None) -> str:
    """Return a fraction in percent, or a dash for None.

    Args:
        fraction: a number in [0, 1].
    """
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def sizes(shape: tuple[int, ...] | None) -> str:
    """Return a shape or block size as people write it, or a dash for None.

    Args:
        shape: one integer per dimension; -1 in a block size is written as ``*``.
    """
    if shape is None:
        return "-"
    return "x".join("*" if size == -1 else str(size) for size in shape) or "scalar"


def spell_scales(row: ReportRow) -> str:
    """Return the scales of a quantized target as people read them, or a dash before there are any.

    Args:
        row: a row of a quantized target.
    """
    if row.dynamic:
        return "at every call"
    if row.scales is None or row.scale_low is None or row.scale_high is None:
        return "-"
    found = f"{row.scale_low:.3g}"
    if row.scales > 1:
        found = f"{row.scales:,}: {found} to {row.scale_high:.3g}"
    return f"{found}, observed only" if row.observed_only else found


def share_of_dense(count: int, files: Mapping[str, int]) -> str:
    """Return how much of the dense model's bytes a file has, or a dash where none are known.

    Args:
        count: bytes of the file.
        files: a report's files.
    """
    return f"{count / files['dense']:.3f}" if files.get("dense") else "-"


def _files(files: Mapping[str, int]) -> TextTable:
    return TextTable(
        columns=(
            Column(heading="file"),
            Column(heading="bytes on disk", is_number=True),
            Column(heading="ratio", is_number=True),
        ),
        rows=tuple(
            (name, f"{count:,}", share_of_dense(count, files)) for name, count in files.items()
        ),
    )


def _pruned(report: ReportData, rows: Sequence[ReportRow]) -> TextTable:
    total = f"{report.masked:,} / {report.elements:,}"
    removed = removals(report)
    table = TextTable(
        columns=(
            Column(heading="target", footer="all pruned weights"),
            Column(heading="algorithm"),
            Column(heading="blocks"),
            Column(heading="shape"),
            Column(heading="asked"),
            Column(heading="masked", footer=total, is_number=True),
            Column(heading="sparsity", footer=percent(report.sparsity), is_number=True),
        ),
        rows=tuple(
            (
                row.name,
                row.algorithm,
                sizes(row.blocks),
                sizes(row.shape),
                row.request,
                _masked(row),
                f"{percent(row.sparsity)}{' !' if row.missed else ''}",
            )
            for row in rows
        ),
        has_footer=report.elements > 0,
        alarming=frozenset(index for index, row in enumerate(rows) if row.missed),
    )
    if not removed:
        return table
    shares = (removed[row.name].share if row.name in removed else None for row in rows)
    return attrs.evolve(
        table,
        columns=(*table.columns, Column(heading="removed", is_number=True)),
        rows=tuple((*row, percent(share)) for row, share in zip(table.rows, shares, strict=True)),
    )


def _masked(row: ReportRow) -> str:
    counted = row.masked is not None and row.elements is not None
    return f"{row.masked:,} / {row.elements:,}" if counted else "-"


def _quantized(report: ReportData, rows: Sequence[ReportRow]) -> TextTable:
    size = report.quantized_size
    return TextTable(
        columns=(
            Column(heading="target", footer="all quantized weights"),
            Column(heading="algorithm"),
            Column(heading="shape", footer=spell_count(size.elements)),
            Column(heading="dtype", footer=f"{size.bits_per_weight:.2f} bits"),
            Column(heading="scheme"),
            Column(heading="granularity"),
            Column(heading="scales", footer=str(size)),
        ),
        rows=tuple(
            (
                row.name,
                row.algorithm,
                sizes(row.shape),
                row.dtype,
                row.scheme,
                row.granularity,
                spell_scales(row),
            )
            for row in rows
        ),
        has_footer=size.elements > 0,
    )


def _compared(rows: Sequence[ReportRow]) -> TextTable:
    return TextTable(
        columns=(Column(heading="target"), Column(heading="compared")),
        rows=tuple((row.name, row.request) for row in rows),
    )


def _removed(shrunk: Shrunk) -> TextTable:
    whole = spell_changes(shrunk)
    return TextTable(
        columns=(
            Column(heading="made smaller", footer="the whole model"),
            *(
                Column(heading=heading, footer=footer, is_number=True)
                for heading, footer in zip(("parameters", "MACs", "bytes"), whole, strict=True)
            ),
        ),
        rows=tuple((one.module or "(root)", *spell_changes(one)) for one in shrunk.modules[:_ROWS]),
        has_footer=True,
    )


def spell_changes(counted: Shrunk | Smaller) -> tuple[str, str, str]:
    """Return how parameters, MACs and bytes changed, as people read it.

    Args:
        counted: a module, or the whole model.
    """
    parameters, macs, held = (
        f"{before:,} -> {after:,}" + (f" ({percent(after / before)})" if before else "")
        for before, after in (counted.parameters, counted.macs, counted.bytes)
    )
    return parameters, macs, held


def _metrics(metrics: Mapping[str, float]) -> TextTable:
    by_measure = tabulate_metrics(metrics)
    moments = list(dict.fromkeys(moment for values in by_measure.values() for moment in values))
    return TextTable(
        columns=(
            Column(heading="measure"),
            *(Column(heading=moment or "value", is_number=True) for moment in moments),
        ),
        rows=tuple(
            (
                measure,
                *(f"{values[moment]:.6g}" if moment in values else "-" for moment in moments),
            )
            for measure, values in by_measure.items()
        ),
    )
