"""``--output`` of commands that write a text: a file, or standard output."""

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
