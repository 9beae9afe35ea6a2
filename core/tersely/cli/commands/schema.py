"""``tersely schema``: writes the JSON Schema that editors check and complete recipes with."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tersely.cli.options.output import output_option
from tersely.cli.options.plugin_files import plugin_option
from tersely.cli.writing import write_text
from tersely.document.schemas.schema import KINDS, Kind, schema


@click.command(name="schema")
@output_option
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="recipe",
    show_default=True,
    help="The document: recipe, job, or the method of a bare config list.",
)
@plugin_option
def command(output: Path | None, kind: Kind) -> None:
    """Write the JSON Schema of recipes, with the options of every installed plugin.

    An editor that is given this schema completes keys, names and options and shows what each
    means. Write it again after installing plugins.
    """
    text = json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"
    write_text(output, text)
