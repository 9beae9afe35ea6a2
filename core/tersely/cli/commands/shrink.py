"""``tersely shrink``: the model of a finished run without what its masks leave without effect."""

from __future__ import annotations

from pathlib import Path

import click

from tersely.cli.options.logging import log_option
from tersely.cli.options.plugin_files import plugin_option


@click.command("shrink")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the small model; by default the folder shrunk in RUN.",
)
@click.option(
    "--round-to",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Keep numbers of rows and columns at multiples of this.",
)
@click.option(
    "--approximate",
    is_flag=True,
    help="Also remove channels whose constant no bias absorbs exactly.",
)
@click.option(
    "--example",
    metavar="MODULE:CALLABLE",
    help="The callable that returns example inputs; by default the job's data.example, else the "
    "first batch of its data.calibration.",
)
@log_option
@plugin_option
def command(
    run: Path, *, output: Path | None, round_to: int, approximate: bool, example: str | None
) -> None:
    """Remove from the model of the finished run in RUN what is masked, and write the rest."""
    from tersely.jobs.shrunk_run import shrink_run  # imports torch, which other commands do without

    shrunk, place = shrink_run(
        run, output, round_to=round_to, approximate=approximate, example=example
    )
    click.echo(str(shrunk))
    click.echo(f"small model: {place}, for tersely.load_shrunk")
