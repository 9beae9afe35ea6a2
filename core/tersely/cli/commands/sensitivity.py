"""``tersely sensitivity``: which layers hurt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import click

from tersely.cli.options.logging import log_option
from tersely.cli.options.plugin_files import job_plugin_options
from tersely.extras import extra

Convert = Callable[[click.Context, click.Parameter, Any], "tuple[float, ...] | None"]


def numbers(kind: type[int] | type[float], *, low: float, high: float) -> Convert:
    """Return the callback of an option that takes numbers with commas between them.

    Args:
        kind: ``int`` or ``float``.
        low: the smallest that makes sense.
        high: the largest that makes sense.
    """

    def convert(
        _: click.Context, parameter: click.Parameter, value: str | None
    ) -> tuple[float, ...] | None:
        if value is None:
            return None
        try:
            found = tuple(kind(part) for part in value.split(","))
        except ValueError as error:
            message = f"{value!r}: expected numbers with commas between them, as in 8,4"
            raise click.BadParameter(message, param=parameter) from error
        for one in found:
            if not low <= one <= high:
                message = f"{one:g} is not between {low:g} and {high:g}"
                raise click.BadParameter(message, param=parameter)
        return found

    return convert


RATIOS = numbers(float, low=0, high=1)
BITS = numbers(int, low=1, high=16)


@click.command("sensitivity")
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--ratios", callback=RATIOS, metavar="R,R,...", help="The sparse ratios to try.")
@click.option("--bits", callback=BITS, metavar="N,N,...", help="The bit widths of weights to try.")
@click.option("--metric", help="Which number of the evaluation counts, if not the first.")
@click.option("--smaller-is-better", "is_cost", is_flag=True, help="The metric is a loss.")
@click.option("--by-output", is_flag=True, help="Measure the output's error, not the metric.")
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
    """Compress each layer of JOB's model alone, and measure what it costs."""
    with extra("cli", purpose="the command line"):
        from rich.console import Console  # slow to import

    # Late: it imports torch.
    from tersely.searching.sensitivity.job import Asked, sensitivity_of_job

    asked = Asked(by_output=by_output, metric=metric, is_cost=is_cost)
    if ratios:
        asked = attrs.evolve(asked, ratios=ratios)
    if bits:
        asked = attrs.evolve(asked, bits=bits)
    found = sensitivity_of_job(
        job, asked=asked, output=output, has_plot=not no_plot, console=Console(quiet=quiet)
    )
    click.echo(str(found))
