"""A report as a table for terminals and log files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tersely.reporting.data import ReportData
from tersely.reporting.quantized_size import spell_count
from tersely.reporting.rows import ReportRow

_WIDTH = 110
_ROWS = 400  # a table of tens of thousands of rows helps nobody; to_dict() has them all
_MOMENTS = ("before", "trained", "compressed", "after")


def report_text(report: ReportData) -> str:
    """Return the report as plain text without colours.

    Args:
        report: what to print.
    """
    stream = io.StringIO()
    console = Console(file=stream, width=_WIDTH, color_system=None, force_terminal=False)
    console.print(report_table(report))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def show_report(report: ReportData, console: Console) -> None:
    """Print a report, in the width and colours of a terminal, or plainly into a file.

    Args:
        report: what to print.
        console: where to print.
    """
    if console.is_terminal:
        console.print(report_table(report))
    else:
        console.print(Text(report_text(report)), soft_wrap=True)


def report_table(report: ReportData) -> RenderableType:
    """Return what a rich console prints for a report.

    Args:
        report: what to print.
    """
    parts: list[RenderableType] = [_banner(warning) for warning in report.warnings]
    for method, make in (("pruning", _pruned), ("quantization", _quantized)):
        rows = report.rows_of(method)
        if rows or (method == "pruning" and not report.rows):
            parts.append(make(report, rows[:_ROWS]))
        if len(rows) > _ROWS:
            parts.append(Text(f"... and {len(rows) - _ROWS} more (report.json has them all)"))
    compared = report.rows_of("distillation")
    if compared:
        parts.append(_compared(compared[:_ROWS]))
    if report.metrics:
        parts.append(_metrics(report.metrics))
    parts.extend(
        Text.assemble((f"{remark.kind}: ", "yellow"), remark.text) for remark in report.remarks
    )
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    if versions:
        parts.append(Text(versions, style="dim"))
    return Group(*parts)


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


def _banner(warning: str) -> RenderableType:
    return Text.assemble(("WARNING ", "bold red"), warning)


def _pruned(report: ReportData, rows: Sequence[ReportRow]) -> Table:
    table = Table(show_footer=report.elements > 0, header_style="bold")
    table.add_column("target", overflow="fold", footer="all pruned weights")
    table.add_column("algorithm", overflow="fold")
    table.add_column("blocks", overflow="fold")
    table.add_column("shape", overflow="fold")
    table.add_column("asked", overflow="fold")
    table.add_column("masked", justify="right", footer=f"{report.masked:,} / {report.elements:,}")
    table.add_column("sparsity", justify="right", footer=percent(report.sparsity), no_wrap=True)
    for row in rows:
        counted = row.masked is not None and row.elements is not None
        _add_row(
            table,
            row.name,
            row.algorithm,
            sizes(row.blocks),
            sizes(row.shape),
            row.request,
            f"{row.masked:,} / {row.elements:,}" if counted else "-",
            f"{percent(row.sparsity)}{' !' if row.missed else ''}",
            style="bold red" if row.missed else None,
        )
    return table


def _quantized(report: ReportData, rows: Sequence[ReportRow]) -> Table:
    size = report.quantized_size
    table = Table(show_footer=size.elements > 0, header_style="bold")
    table.add_column("target", overflow="fold", footer="all quantized weights")
    table.add_column("algorithm", overflow="fold")
    table.add_column("shape", overflow="fold", footer=spell_count(size.elements))
    table.add_column("dtype", overflow="fold", footer=f"{size.bits_per_weight:.2f} bits")
    table.add_column("scheme", overflow="fold")
    table.add_column("granularity", overflow="fold")
    table.add_column("scales", overflow="fold", footer=str(size))
    for row in rows:
        _add_row(
            table,
            row.name,
            row.algorithm,
            sizes(row.shape),
            row.dtype,
            row.scheme,
            row.granularity,
            spell_scales(row),
        )
    return table


def _compared(rows: Sequence[ReportRow]) -> Table:
    table = Table(header_style="bold")
    for heading in ("target", "compared"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        _add_row(table, row.name, row.request)
    return table


def _add_row(table: Table, *cells: str, style: str | None = None) -> None:
    # As Text, because a name in brackets would be taken for markup.
    table.add_row(*(Text(cell) for cell in cells), style=style)


def _metrics(metrics: Mapping[str, float]) -> Table:
    by_measure = tabulate_metrics(metrics)
    moments = list(dict.fromkeys(moment for values in by_measure.values() for moment in values))
    table = Table(header_style="bold")
    table.add_column("measure")
    for moment in moments:
        table.add_column(moment or "value", justify="right")
    for measure, values in by_measure.items():
        table.add_row(
            Text(measure),
            *(f"{values[moment]:.6g}" if moment in values else "-" for moment in moments),
        )
    return table
