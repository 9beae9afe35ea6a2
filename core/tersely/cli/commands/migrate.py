"""``tersely migrate``: prints an NNI config list in this specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click
import yaml

from tersely.cli.options.output import output_option
from tersely.cli.writing import write_text
from tersely.document.migration.migrate import migrate_document
from tersely.document.reading.source import read_file
from tersely.json_value import Json


@click.command(name="migrate")
@click.argument("file")
@output_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["yaml", "json"]),
    help="How to write the list; by default as FILE is written.",
)
def command(file: str, output: Path | None, format_: Literal["yaml", "json"] | None) -> None:
    """Rewrite an NNI 1.x or 2.x config list in this specification.

    A key without an equivalent is an error that names its place and what to do about it.
    FILE itself is not changed.
    """
    entries = migrate_document(read_file(file))
    is_json = format_ == "json" or (format_ is None and file.lower().endswith(".json"))
    text = _as_json(entries) if is_json else _as_yaml(entries)
    write_text(output, text)


def _as_json(entries: list[dict[str, Json]]) -> str:
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def _as_yaml(entries: list[dict[str, Json]]) -> str:
    text: str = yaml.safe_dump(
        entries, sort_keys=False, allow_unicode=True, default_flow_style=None
    )
    return text
