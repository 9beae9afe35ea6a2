"""``tersely sensitivity``: how much quality each layer costs."""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from tersely.cli.console import make_console
from tersely.cli.options.logging import log_option
from tersely.cli.options.measuring import measuring_options
from tersely.cli.options.plugin_files import job_plugin_options


@click.command("sensitivity")
@click.argument("job", type=click.Path(path_type=Path))
@measuring_options
@click.option("--output", type=click.Path(path_type=Path), help="The folder to write to.")
@click.option("--no-plot", is_flag=True, help="Do not draw the plot.")
@click.option("--quiet", is_flag=True, help="Print only the table at the end.")
@log_option
@job_plugin_options("job")
def command(  # noqa: PLR0913  # one for each option
    job: Path,
    *,
    ratios: tuple[float, ...] | None,
    bits: tuple[int, ...] | None,
    metric: str | None,
    is_cost: bool,
    by_output: bool,
    output: Path | None,
    no_plot: bool,
    quiet: bool,
) -> None:
    """Compress each layer of JOB's model alone, and measure how much quality that costs."""
    # Late: it imports torch.
    from tersely.searching.sensitivity.job import Asked, sensitivity_of_job

    asked = Asked(by_output=by_output, metric=metric, is_cost=is_cost)
    if ratios:
        asked = attrs.evolve(asked, ratios=ratios)
    if bits:
        asked = attrs.evolve(asked, bits=bits)
    found = sensitivity_of_job(
        job, asked=asked, output=output, has_plot=not no_plot, console=make_console(quiet=quiet)
    )
    click.echo(str(found))
