"""``tersely plugins new``: a third-party package to start from, which passes its own contract."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

import attrs
import click

from tersely.registry.hookspecs import plugin_api
from tersely.registry.kinds import EXPORTER, GRANULARITY, LOSS, PRUNER, QUANTIZER, Kind
from tersely.registry.registry import Registry, registry

_TEMPLATES = Path(__file__).with_name("templates")
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_KINDS = {kind.name: kind for kind in (PRUNER, QUANTIZER, GRANULARITY, LOSS, EXPORTER)}


@attrs.frozen(kw_only=True)
class Scaffold:
    """What the templates of a new package are filled with.

    Attributes:
        name: the name users will write.
        kind: what it provides.
    """

    name: str
    kind: Kind

    @property
    def distribution(self) -> str:
        """The distribution's name."""
        return "tersely-" + self.name.replace("_", "-").rstrip("-")

    @property
    def package(self) -> str:
        """The import package's name."""
        return f"tersely_{self.name}"

    def files(self) -> Mapping[str, str]:
        """Return path -> content of every file, the paths relative to the package's folder."""
        source = f"src/{self.package}"
        return {
            "README.md": self._fill("README.md"),
            "pyproject.toml": self._fill("pyproject.toml"),
            f"{source}/__init__.py": self._fill("face.py"),
            f"{source}/{self.name}.py": self._fill(f"{self.kind.name}.py"),
            f"{source}/py.typed": "",
            "tests/test_contract.py": self._fill("test_contract.py"),
        }

    def _fill(self, template: str) -> str:
        text = (_TEMPLATES / f"{template}.template").read_text(encoding="utf-8")
        words = "".join(word.capitalize() for word in self.name.split("_"))
        return Template(text).substitute(
            api=plugin_api[0],
            distribution=self.distribution,
            hook=self.kind.hook,
            info=self.kind.descriptor.__name__,
            kind=self.kind.name,
            name=self.name,
            object=self.name if self.kind is LOSS else words,
            package=self.package,
        )


@click.command("new")
@click.argument("name")
@click.option(
    "--kind",
    "kind_name",
    type=click.Choice(list(_KINDS)),
    default=PRUNER.name,
    show_default=True,
    help="What the package provides.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The package's folder; by default tersely-NAME.",
)
def new_plugin(name: str, kind_name: str, output: Path | None) -> None:
    """Write a package that provides NAME; nothing that exists is overwritten."""
    scaffold = Scaffold(name=_checked(name, _KINDS[kind_name], registry()), kind=_KINDS[kind_name])
    folder = Path(scaffold.distribution) if output is None else output
    write_files(folder, scaffold.files())
    click.echo(f"{folder}: wrote {scaffold.distribution} with the {kind_name} {name!r}; next:")
    click.echo(f"  pip install -e {folder}")
    click.echo(f"  tersely plugins check {name}")


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
            f"another folder with --output"
        )
    try:
        for path, content in files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("x", encoding="utf-8") as stream:
                stream.write(content)
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error}") from error


def _checked(name: str, kind: Kind, installed: Registry) -> str:
    if not _NAME.match(name):
        legal = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("_0123456789")
        hint = f", such as {legal!r}" if legal else ""
        raise click.BadParameter(f"{name!r} must match ^[a-z][a-z0-9_]*${hint}")
    if keyword.iskeyword(name):
        raise click.BadParameter(
            f"{name!r} is a Python keyword, and a module takes this name; choose another, such as "
            f"{f'{name}_{kind.name}'!r}"
        )
    catalog = getattr(installed, kind.catalog)
    if name in catalog:
        raise click.BadParameter(
            f"{catalog.record(name).title} provides a {kind.name} called {name!r} already; "
            f"choose another name"
        )
    return name
