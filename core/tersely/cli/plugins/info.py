"""``tersely plugins info``: one name or one plugin in detail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from textwrap import indent

import attrs
import click

from tersely.cli.options.output import layout_option
from tersely.cli.options.plugin_files import plugin_option
from tersely.cli.plugins.find import KIND_NAMES, find_names, find_plugins, loading_text, unknown
from tersely.json_value import Json
from tersely.registry.kinds import Kind
from tersely.registry.record import PluginRecord, Registration
from tersely.registry.registry import registry

_LABEL = 20
_ABSENT = {"granularities": "any", "needs": "what its abilities need", "paper": "none"}
"""What None means in words, for the fields where that is worth a line."""


@click.command("info")
@click.argument("name")
@click.option("--kind", "kind_name", type=click.Choice(KIND_NAMES), help="Look only for this kind.")
@layout_option("text", "json", help="Text for people, or JSON.")
@plugin_option
def show_plugin(name: str, kind_name: str | None, layout: str) -> None:
    """Describe NAME: an algorithm, a granularity, a loss, ... or a plugin's distribution."""
    installed = registry()
    found = find_names(installed, name, kind_name=kind_name)
    records = () if kind_name else find_plugins(installed, name)
    if not found and not records:
        raise unknown(installed, name)
    data = [_name_data(kind, registration) for kind, registration in found]
    data += [_plugin_data(record) for record in records]
    if layout == "json":
        click.echo(json.dumps(data, indent=2))
    else:
        for record, each in zip(records, data[len(found) :], strict=True):
            each["loading"] = loading_text(record)
        click.echo("\n\n".join(_text(each) for each in data))


def _plugin_data(record: PluginRecord) -> dict[str, Json]:
    return {
        "name": record.name,
        "kind": "plugin",
        "distribution": record.distribution,
        "version": record.version,
        "state": record.state,
        "reason": record.reason,
        "provides": [f"{kind} {name}" for kind, name in record.provides],
        "loading": None if record.loading is None else attrs.asdict(record.loading),
    }


def _name_data(kind: Kind, registration: Registration) -> dict[str, Json]:
    fields = attrs.asdict(registration.descriptor)
    return {
        "name": fields.pop("name"),
        "kind": kind.name,
        "distribution": registration.distribution,
        "version": registration.version,
        "qualified": registration.qualified,
        **fields,
    }


def _text(data: Mapping[str, Json]) -> str:
    lines = [f"{data['name']} ({data['kind']})"]
    for label, value in data.items():
        if label in ("name", "kind") or value == "" or (value is None and label not in _ABSENT):
            continue
        written = _ABSENT[label] if value is None else _written(label, value)
        title = label.replace("_", " ")
        if "\n" in written:
            lines += [f"  {title}", indent(written, "    ")]
        else:
            lines.append(f"  {title:<{_LABEL}} {written}")
    return "\n".join(lines)


def _written(label: str, value: Json) -> str:
    if label == "options" and not value.get("properties"):
        return "none"
    if isinstance(value, list | tuple):
        empty = "those that it inherits" if label == "abilities" else "nothing"
        return ", ".join(str(each) for each in value) or empty
    return json.dumps(value, indent=2) if isinstance(value, dict) else str(value)
