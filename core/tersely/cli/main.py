"""The command ``tersely``: finds subcommands when they are called, and turns errors into exits."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module

from tersely.errors import ConfigError, TerselyError
from tersely.extras import extra
from tersely.version import __version__

with extra("cli", purpose="the command line"):
    import click

COMMANDS: Mapping[str, str] = {
    "validate": "tersely.cli.commands.validate:command",
    "plan": "tersely.cli.commands.plan:command",
    "run": "tersely.cli.commands.run:command",
    "shrink": "tersely.cli.commands.shrink:command",
    "report": "tersely.cli.commands.report:command",
    "compare": "tersely.cli.commands.compare:command",
    "export": "tersely.cli.commands.export:command",
    "sensitivity": "tersely.cli.commands.sensitivity:command",
    "search": "tersely.cli.commands.search:command",
    "plugins": "tersely.cli.plugins.group:command",
    "schema": "tersely.cli.commands.schema:command",
    "migrate": "tersely.cli.commands.migrate:command",
}
"""Subcommand -> where it is; imported when it is called, since ``plan`` and ``run`` need torch."""

_SUMMARIES: Mapping[str, str] = {
    "validate": "Check recipes, jobs and config lists.",
    "plan": "Show what a recipe would do to a model.",
    "run": "Run a job: compress, train, evaluate, save and report.",
    "shrink": "Make the model of a finished run smaller.",
    "report": "Show the report of a finished run.",
    "compare": "Show finished runs side by side.",
    "export": "Write the model of a finished run in another format.",
    "sensitivity": "Measure how much quality compressing each layer costs.",
    "search": "Find the cheapest recipe that is good enough.",
    "plugins": "List, describe, check and create plugins.",
    "schema": "Write the JSON Schema of recipes, for editors.",
    "migrate": "Rewrite an NNI config list in this specification.",
}

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FAILED = 1
_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called; click asks for a class."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand, or None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"tersely {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Compress PyTorch models from one declarative file."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: what follows ``tersely``, or None for ``sys.argv``.
    """
    try:
        with _plain_warnings():
            status = cli.main(arguments, prog_name="tersely", standalone_mode=False)
    except ConfigError as error:
        from tersely.cli.problems import explain  # late: most commands have nothing to explain

        for line in explain(error):
            click.echo(line, err=True)
        status = _FAILED
    except TerselyError as error:
        click.echo(f"tersely: {error}", err=True)
        status = _FAILED
    except BrokenPipeError:
        # The reader, such as head, has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _FAILED
    except OSError as error:
        if error.errno not in _FULL:
            raise  # of a model's own code, whose place only a traceback shows
        click.echo(
            f"tersely: {error.filename or 'a file'} cannot be written: {error.strerror}; free some "
            "space, or write to another place",
            err=True,
        )
        status = _FAILED
    except click.Abort:
        # click turns KeyboardInterrupt into Abort.
        click.echo("tersely: interrupted", err=True)
        status = _INTERRUPTED
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings of tersely as sentences, without the line of code that gave them."""
    standard = warnings.formatwarning

    def plain(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if category.__module__.startswith("tersely"):
            return f"tersely: warning: {message}\n"
        return standard(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = standard


if __name__ == "__main__":
    main()
