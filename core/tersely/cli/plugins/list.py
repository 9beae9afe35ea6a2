"""``tersely plugins list``: everything that is installed, with versions and states."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import attrs
import click

from tersely.cli.options.output import layout_option
from tersely.cli.options.plugin_files import plugin_option
from tersely.cli.plugins.find import loading_text
from tersely.extras import extra
from tersely.registry.copies import one_line
from tersely.registry.kinds import KINDS
from tersely.registry.record import PluginRecord
from tersely.registry.registry import Registry, registry

with extra("cli", purpose="the command line"):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_WIDTH_OF_PIPES = 200
_STYLES = {"ok": "green", "broken": "bold red", "refused": "red", "denied": "yellow"}


@attrs.frozen(kw_only=True)
class Row:
    """One line of the listing.

    Attributes:
        name: the name to write in a config; for a plugin that provides none, the plugin's own.
        kind: what it is; empty for a plugin that provides no name.
        distribution: where it comes from.
        version: the distribution's version.
        state: the plugin's state.
        loading: how long its face took to load, with what it should not have done.
        summary: what it does, or why it cannot be used.
    """

    name: str
    kind: str
    distribution: str
    version: str
    state: str
    loading: str
    summary: str


@click.command("list")
@layout_option("text", "json", help="A table for people, or JSON.")
@plugin_option
def list_plugins(layout: str) -> None:
    """List everything that plugins provide, and the plugins that cannot be used."""
    installed = registry()
    rows = rows_of(installed)
    if layout == "json":
        data = {
            "plugins": [
                _plugin_data(record) | {"overruled": installed.overruled().get(record.name, ())}
                for record in installed.plugins()
            ],
            "names": [attrs.asdict(row) for row in rows if row.kind],
        }
        click.echo(json.dumps(data, indent=2))
    else:
        _print_table(rows)


def rows_of(installed: Registry) -> tuple[Row, ...]:
    """Return one row for each name, by kind, and one for each plugin without names.

    Args:
        installed: the registry.
    """
    rows = []
    loading = {record.title: loading_text(record) for record in installed.plugins()}
    for kind in KINDS:
        catalog = getattr(installed, kind.catalog)
        for name in catalog:
            found = catalog.record(name)
            row = Row(
                name=name,
                kind=kind.name,
                distribution=found.distribution,
                version=found.version,
                state="ok",
                loading=loading.get(found.title, ""),
                summary=one_line(found.descriptor.summary),
            )
            rows.append(row)
    overruled = installed.overruled()
    for record in installed.plugins():
        if record.state == "ok" and record.provides and record.name not in overruled:
            continue
        row = Row(
            name=record.name,
            kind="",
            distribution=record.distribution,
            version=record.version,
            state=record.state,
            loading=loading_text(record),
            summary=_remark(record, overruled.get(record.name, ())),
        )
        rows.append(row)
    return tuple(rows)


def _remark(record: PluginRecord, overruled: Sequence[str]) -> str:
    if overruled:
        return f"default targets that have no effect: {', '.join(overruled)}"
    return record.reason or "provides no name: it observes, or sets default targets"


def _plugin_data(record: PluginRecord) -> dict[str, object]:
    data = attrs.asdict(record)
    data["provides"] = [{"kind": kind, "name": name} for kind, name in record.provides]
    return data


def _print_table(rows: Sequence[Row]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("name", "kind", "distribution", "version", "state"):
        table.add_column(heading, no_wrap=True)
    table.add_column("loading", no_wrap=True)
    table.add_column("summary")
    for row in rows:
        state = Text(row.state, style=_STYLES[row.state])
        texts = [Text(text) for text in (row.name, row.kind, row.distribution, row.version)]
        table.add_row(*texts, state, Text(row.loading), Text(row.summary))
    # A pipe has no width of its own, and a name cut to fit 80 columns would be no name.
    width = None if sys.stdout.isatty() else _WIDTH_OF_PIPES
    Console(width=width).print(table)
