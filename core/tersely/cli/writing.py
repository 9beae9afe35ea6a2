"""Where commands write their output: a file, atomically, or standard output."""

from __future__ import annotations

import os

import click

from tersely.storage.durable import write_whole


def write_file(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file and print its name.

    Args:
        path: the file.
        data: its whole content.

    Raises:
        click.ClickException: it cannot be written.
    """
    write_quietly(path, data)
    click.echo(f"wrote {path}", err=True)


def write_text(path: str | os.PathLike[str] | None, text: str) -> None:
    """Write a text to a file, or to standard output.

    Args:
        path: the file, or None for standard output.
        text: the text, with its last newline.

    Raises:
        click.ClickException: it cannot be written.
    """
    if path is None:
        click.echo(text, nl=False)
    else:
        write_file(path, text)


def write_quietly(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file that the command's own output names.

    Args:
        path: the file.
        data: its whole content.

    Raises:
        click.ClickException: it cannot be written.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
