"""``tersely plugins new``: a third-party package to start from, which passes its own contract."""

from __future__ import annotations

import datetime
import importlib.util
import keyword
import re
from collections.abc import Mapping
from pathlib import Path

import click

from tersely.cli.plugins.scaffold import SCAFFOLDED, Scaffold
from tersely.registry.kinds import KINDS, PRUNER
from tersely.registry.registry import Registry, registry

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_LONGEST = 34  # the lines of what is written stay within 100 characters
_IMPORTED = ("annotations", "fractions", "torch", "typing")
"""What the templates import, which a function of the same name would hide."""


@click.command("new")
@click.argument("name")
@click.option(
    "--kind",
    "kind_name",
    type=click.Choice(list(SCAFFOLDED)),
    default=PRUNER.name,
    show_default=True,
    help="What the package provides.",
)
@click.option("--author", help="The author, for the licence and the project file.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The package's folder; by default tersely-NAME.",
)
def new_plugin(name: str, *, kind_name: str, author: str | None, output: Path | None) -> None:
    """Write a package that provides NAME; nothing that exists is overwritten."""
    if author is not None and not author.isprintable():
        raise click.BadParameter(f"{author!r} is not one line of text", param_hint="--author")
    scaffold = Scaffold(
        name=name,
        kind=SCAFFOLDED[kind_name],
        year=datetime.datetime.now(tz=datetime.timezone.utc).year,
        author=author,
    )
    _check(scaffold, registry())
    folder = Path(scaffold.distribution) if output is None else output
    write_files(folder, scaffold.files())
    click.echo(f"{folder}: wrote {scaffold.distribution} with the {kind_name} {name!r}; next:")
    click.echo(f'  pip install -e "{folder}[test]"')
    click.echo(f"  tersely plugins check {name}")
    click.echo(f"  pytest {folder}")


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write files that are all new, or none.

    Args:
        folder: where; made when it is missing.
        files: path relative to the folder -> content.

    Raises:
        click.ClickException: one of them exists, or the folder cannot be written.
    """
    taken = [path for path in files if (folder / path).exists()]
    if taken:
        raise click.ClickException(
            f"{folder} holds {', '.join(taken)} already, and nothing is overwritten; choose "
            "another folder with --output"
        )
    made: list[Path] = []
    try:
        for path, content in files.items():
            place = folder / path
            _make_folder(place.parent, made)
            with place.open("x", encoding="utf-8") as stream:
                made.append(place)
                stream.write(content)
    except BaseException as error:
        for place in reversed(made):
            place.rmdir() if place.is_dir() else place.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise click.ClickException(f"{folder} cannot be written: {reason}") from error
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent, made)
        folder.mkdir()
        made.append(folder)


def _check(scaffold: Scaffold, installed: Registry) -> None:
    name, kind = scaffold.name, scaffold.kind
    if not _NAME.match(name):
        legal = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("_0123456789")
        hint = f", such as {legal!r}" if legal else ""
        raise click.BadParameter(f"{name!r} must match ^[a-z][a-z0-9_]*${hint}")
    if len(name) > _LONGEST:
        raise click.BadParameter(
            f"{name!r} has {len(name)} characters; a package is named after it, so choose one of "
            f"at most {_LONGEST}"
        )
    longer = f"{name.rstrip('_')}_{kind.name}"
    if keyword.iskeyword(name) or keyword.iskeyword(scaffold.object):
        raise click.BadParameter(
            f"{name!r} is a Python keyword, and a module takes this name; choose another, such as "
            f"{longer!r}"
        )
    if scaffold.object in _IMPORTED:
        raise click.BadParameter(
            f"{name!r} is what the module of a {kind.name} imports; choose another, such as "
            f"{longer!r}"
        )
    catalog = getattr(installed, kind.catalog)
    if name in catalog:
        raise click.BadParameter(
            f"{catalog.record(name).title} provides a {kind.name} called {name!r} already; "
            "choose another name"
        )
    is_official = scaffold.distribution in {kind.family for kind in KINDS}
    if is_official or importlib.util.find_spec(scaffold.package) is not None:
        raise click.BadParameter(
            f"{name!r} would be the package {scaffold.package}, which already exists; choose "
            f"another name, such as {longer!r}"
        )
