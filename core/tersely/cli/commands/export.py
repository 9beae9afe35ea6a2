"""``tersely export``: a format of a finished run, written and checked."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tersely.cli.console import make_console
from tersely.cli.options.logging import log_option
from tersely.cli.options.plugin_files import plugin_option
from tersely.errors import ConfigError, Problem
from tersely.json_value import Json


@click.command("export")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--format", "format_name", required=True, help="The exporter's name, such as onnx.")
@click.option("--output", type=click.Path(path_type=Path), help="The file or folder to write.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An exporter option.")
@click.option("--dynamic-batch", is_flag=True, help="Allow inputs of any batch size.")
@click.option("--quiet", is_flag=True, help="Print only the files written.")
@log_option
@plugin_option
def command(
    directory: Path,
    *,
    format_name: str,
    output: Path | None,
    options: tuple[str, ...],
    dynamic_batch: bool,
    quiet: bool,
) -> None:
    """Write the model of the finished run in DIRECTORY in another format."""
    # Late: it imports torch.
    from tersely.jobs.exporting import export_run

    found = export_run(
        directory,
        format_name,
        output=output,
        options=dict(_option(one) for one in options),
        dynamic_shapes="batch" if dynamic_batch else None,
        # What was written goes to standard output, for scripts.
        console=make_console(stderr=True, quiet=quiet),
    )
    for path in found.paths:
        click.echo(str(path))
    click.echo(f"{found.bytes:,} bytes")
    for name, value in found.checks.items():
        click.echo(f"  {name}: {json.dumps(value)}")


def _option(text: str) -> tuple[str, Json]:
    key, separator, value = text.partition("=")
    if not separator:
        problem = Problem("--option", f"found {text!r}, expected KEY=VALUE")
        raise ConfigError([problem], source="the command line")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
