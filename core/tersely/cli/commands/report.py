"""``tersely report``: the report of a finished run, printed or in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from tersely.cli.console import make_console
from tersely.errors import SessionFileError
from tersely.reporting.report import read_report


@click.command("report")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--open", "in_browser", is_flag=True, help="Open report.html in a browser instead.")
def command(directory: Path, *, in_browser: bool) -> None:
    """Print the report of the finished run in DIRECTORY."""
    if in_browser:
        page = directory / "report.html"
        if not page.is_file():
            raise SessionFileError(
                f"{page} does not exist; give the output folder of a finished `tersely run`",
                path=page,
            )
        click.launch(str(page.absolute()))
        return
    console = make_console()
    from tersely.reporting.printing.terminal import show_report  # imports rich too

    show_report(read_report(directory / "report.json"), console)
