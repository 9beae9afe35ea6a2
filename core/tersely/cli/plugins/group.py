"""``tersely plugins``: lists, describes, checks and creates plugins."""

from __future__ import annotations

import click

from tersely.cli.plugins.check import check_plugin
from tersely.cli.plugins.info import show_plugin
from tersely.cli.plugins.list import list_plugins
from tersely.cli.plugins.new import new_plugin


@click.group("plugins")
def command() -> None:
    """List, describe, check and scaffold plugins."""


for _subcommand in (list_plugins, show_plugin, check_plugin, new_plugin):
    command.add_command(_subcommand)
