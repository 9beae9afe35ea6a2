"""``--plugin FILE`` and ``--trust``: plugins of one file, for one call of a command."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from tersely.document.reading.source import read_file
from tersely.document.rules.plugin_files import named_files
from tersely.errors import ConfigError, PluginConflictError
from tersely.registry.record import same_distribution
from tersely.registry.registry import registry

Command = TypeVar("Command", bound=Callable[..., Any])


def plugin_option(command: Command) -> Command:
    """Give a command the option ``--plugin``, and load the files around it.

    Args:
        command: the function that click calls.
    """
    return _option(_around(command, None))


def job_plugin_options(argument: str) -> Callable[[Command], Command]:
    """Give a command of jobs the options ``--plugin`` and ``--trust``.

    Args:
        argument: the name of the command's argument with the job's file, or with several files.
    """

    def decorate(command: Command) -> Command:
        trust = click.option(
            "--trust", is_flag=True, help="Also load the plugin files that the job names."
        )
        return _option(trust(_around(command, argument)))

    return decorate


def _option(command: Command) -> Command:
    return click.option(
        "--plugin",
        "plugin_files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Run this Python file as a plugin; may be given several times.",
    )(command)


def _around(command: Command, argument: str | None) -> Command:
    @functools.wraps(command)
    def loaded(*args: Any, plugin_files: tuple[Path, ...], **kwargs: Any) -> Any:
        files = list(plugin_files)
        if argument is not None and kwargs.pop("trust"):
            given = kwargs[argument]
            for job in given if isinstance(given, tuple) else [given]:
                files += _named_in(Path(job))
        with _registered(files):
            return command(*args, **kwargs)

    return loaded  # type: ignore[return-value]  # click calls it, with the options added above


def _named_in(job: Path) -> tuple[Path, ...]:
    try:
        data = read_file(job).data
    except ConfigError:
        return ()  # the command itself says what is wrong with it
    return named_files(data, job.resolve().parent)


@contextlib.contextmanager
def _registered(files: Iterable[Path]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        loaded: dict[str, Path] = {}
        for file in dict.fromkeys(file.resolve() for file in files):
            try:
                name = registry().register_file(file)
            except PluginConflictError as error:
                raise _conflict(file, loaded) from error
            loaded[name] = file
            stack.callback(registry().unregister, name)
        yield


def _conflict(file: Path, loaded: Mapping[str, Path]) -> PluginConflictError:
    for name, other in loaded.items():
        if same_distribution(name, file.name):
            text = f"the plugin files {other} and {file} have one name"
            break
    else:
        text = f"the plugin file {file} has the name of a plugin that is installed"
    return PluginConflictError(
        f"{text}, with which the qualified names of what they provide begin; rename one of them",
        plugin=file.name,
    )
