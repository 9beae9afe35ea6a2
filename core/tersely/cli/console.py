"""The console of commands that show progress or tables with rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tersely.extras import extra

if TYPE_CHECKING:
    from rich.console import Console


def make_console(*, quiet: bool = False, stderr: bool = False) -> Console:
    """Return a console.

    Args:
        quiet: whether it prints nothing.
        stderr: whether it prints to standard error.

    Raises:
        MissingExtraError: rich is not installed.
    """
    with extra("cli", purpose="the command line"):
        from rich.console import Console  # as slow to import as everything else together

    return Console(quiet=quiet, stderr=stderr)
