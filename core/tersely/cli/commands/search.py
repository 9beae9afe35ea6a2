"""``tersely search``: the cheapest recipe that is good enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tersely.cli.console import make_console
from tersely.cli.options.logging import log_option
from tersely.cli.options.measuring import measuring_options
from tersely.cli.options.plugin_files import job_plugin_options


@click.command("search")
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    required=True,
    metavar="PERCENT",
    help="How much quality may be lost, in percent.",
)
@click.option(
    "--objective",
    type=click.Choice(["latency", "bytes", "macs"]),
    default="macs",
    show_default=True,
    help="The cost to minimize.",
)
@click.option("--trials", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@measuring_options
@click.option(
    "--costs",
    type=click.Choice(["measured", "table"]),
    default="measured",
    show_default=True,
    help="Measure the latency of each trial, or look it up in a table of layers.",
)
@click.option("--storage", metavar="URL", help="The database of trials; may be shared.")
@click.option("--output", type=click.Path(path_type=Path), help="The folder to write to.")
@click.option("--quiet", is_flag=True, help="Print only the tables at the end.")
@log_option
@job_plugin_options("job")
def command(
    job: Path, *, storage: str | None, output: Path | None, quiet: bool, **options: Any
) -> None:
    """Find the cheapest recipe for JOB's model that loses no more than allowed."""
    # Late: it imports torch.
    from tersely.searching.search.job import Wanted, search_job

    given = {key: value for key, value in options.items() if value is not None}
    console = make_console(quiet=quiet)
    result = search_job(job, Wanted(**given), storage=storage, output=output, console=console)
    click.echo(str(result))
    if result.recipe is None:
        raise click.exceptions.Exit(1)
