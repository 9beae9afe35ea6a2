"""A report in the width and colours of a terminal."""

from __future__ import annotations

from tersely.extras import extra
from tersely.reporting.data import ReportData
from tersely.reporting.printing.table import Line, report_parts, report_text
from tersely.text_table import TextTable

with extra("cli", purpose="a report in colours"):
    from rich.console import Console, Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_STYLES = {"warning": "bold red", "remark": "yellow", "versions": "dim", "plain": ""}


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
    return Group(
        *(
            _coloured_table(part) if isinstance(part, TextTable) else _coloured_line(part)
            for part in report_parts(report)
        )
    )


def _coloured_line(line: Line) -> Text:
    if line.label:
        return Text.assemble((line.label, _STYLES[line.kind]), line.text)
    return Text(line.text, style=_STYLES[line.kind])


def _coloured_table(described: TextTable) -> Table:
    table = Table(show_footer=described.has_footer, header_style="bold")
    for column in described.columns:
        table.add_column(
            column.heading,
            footer=Text(column.footer),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number,
            overflow="fold",
        )
    for index, row in enumerate(described.rows):
        # As Text, because a name in brackets would be taken for markup.
        style = "bold red" if index in described.alarming else None
        table.add_row(*map(Text, row), style=style)
    return table
