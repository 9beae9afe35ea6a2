"""``tersely plugins``: lists, describes, checks and creates plugins."""

from __future__ import annotations

import click

from tersely.cli.plugins_check import check_plugin
from tersely.cli.plugins_info import show_plugin
from tersely.cli.plugins_list import list_plugins
from tersely.cli.plugins_new import new_plugin


@click.group("plugins")
def command() -> None:
    """List, describe, check and scaffold plugins."""


for _subcommand in (list_plugins, show_plugin, check_plugin, new_plugin):
    command.add_command(_subcommand)
