"""``--output`` and ``--format`` of commands that write a text: where it goes, and its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def output_option(command: Command) -> Command:
    """Give a command the option ``--output``.

    Args:
        command: the function that click calls; it hands the value to `write_text`.
    """
    return click.option(
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The file to write, atomically; standard output by default.",
    )(command)


def layout_option(*layouts: str, help: str) -> Callable[[Command], Command]:
    """Return what gives a command the option ``--format``, passed to it as ``layout``.

    Args:
        *layouts: what it can be; the first is the default.
        help: what it says of them.
    """
    return click.option(
        "--format",
        "layout",
        type=click.Choice(layouts),
        default=layouts[0],
        show_default=True,
        help=help,
    )
