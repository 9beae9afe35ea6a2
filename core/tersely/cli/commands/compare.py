"""``tersely compare``: finished runs side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tersely.cli.options.output import layout_option
from tersely.cli.writing import write_file
from tersely.errors import SessionFileError

if TYPE_CHECKING:
    from tersely.reporting.comparing.comparison import ComparedRun


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the comparison as one HTML page.",
)
@layout_option("text", "json", help="Tables for people, or JSON.")
def command(runs: tuple[Path, ...], *, html: Path | None, layout: str) -> None:
    """Compare finished runs: what they measured, how their jobs differ, which layers differ."""
    from tersely.reporting.comparing.compare import compare_runs  # imports torch, as reports do

    names = _names(runs)
    comparison = compare_runs([_read(run, name) for run, name in zip(runs, names, strict=True)])
    if layout == "json":
        click.echo(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False))
    else:
        click.echo(str(comparison))
    if html is not None:
        from tersely.reporting.page.comparison_page import render_comparison  # needs an extra

        write_file(html, render_comparison(comparison))


def _names(runs: tuple[Path, ...]) -> list[str]:
    """Return what tells the runs apart: their paths without the part that all share."""
    places = [run.absolute() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise click.UsageError(f"{run} is given twice; compare different runs")
    if len(places) == 1:
        return [places[0].name]
    shared = os.path.commonpath(places)
    return [os.path.relpath(place, shared) for place in places]


def _read(folder: Path, name: str) -> ComparedRun:
    # Here, because reading a record imports what jobs need.
    from tersely.jobs.output.record import unreplaced
    from tersely.reporting.comparing.comparison import ComparedRun
    from tersely.reporting.report import read_report

    with unreplaced(folder) as record:
        report = read_report(folder / "report.json")
    if record is None:
        raise SessionFileError(
            f"{folder} has a report and no run.json; give the output folder of a finished "
            "`tersely run`",
            path=folder,
        )
    return ComparedRun(name=name, report=report, job=record.job, files=record.files)
