"""Options of commands that compress layers at several levels and measure the loss of quality."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Convert = Callable[[click.Context, click.Parameter, Any], "tuple[float, ...] | None"]


def measuring_options(command: Command) -> Command:
    """Give a command the options for levels to try, and for the measure of quality.

    Args:
        command: the function that click calls.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def numbers(kind: type[int] | type[float], *, low: float, high: float) -> Convert:
    """Return the callback of an option that takes numbers with commas between them.

    Args:
        kind: ``int`` or ``float``.
        low: the smallest valid number.
        high: the largest valid number.
    """

    def convert(
        _: click.Context, parameter: click.Parameter, value: str | None
    ) -> tuple[float, ...] | None:
        if value is None:
            return None
        try:
            found = tuple(kind(part) for part in value.split(","))
        except ValueError as error:
            message = f"{value!r}: expected numbers with commas between them, as in 8,4"
            raise click.BadParameter(message, param=parameter) from error
        for one in found:
            if not low <= one <= high:
                message = f"{one:g} is not between {low:g} and {high:g}"
                raise click.BadParameter(message, param=parameter)
        return found

    return convert


_OPTIONS = (
    click.option(
        "--ratios",
        callback=numbers(float, low=0, high=1),
        metavar="R,R,...",
        help="The sparse ratios to try.",
    ),
    click.option(
        "--bits",
        callback=numbers(int, low=1, high=16),
        metavar="N,N,...",
        help="The bit widths of weights to try.",
    ),
    click.option("--metric", help="The metric to use; the first one by default."),
    click.option(
        "--smaller-is-better", "is_cost", is_flag=True, help="The metric is better if smaller."
    ),
    click.option("--by-output", is_flag=True, help="Use the output's error instead."),
)
