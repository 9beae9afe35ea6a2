"""``tersely validate``: checks files without importing torch or running anything."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tersely.cli.fix import fix_file
from tersely.cli.options.output import layout_option
from tersely.cli.options.plugin_files import job_plugin_options
from tersely.cli.problems import Checked, Format, describe_problem, render
from tersely.contracts.kinds import Method
from tersely.document.detect import detect_kind
from tersely.document.load import recipe_file, training_problems
from tersely.document.reading.positions import Document
from tersely.document.reading.source import read_file
from tersely.document.rules.plugin_files import unloaded
from tersely.document.schemas.schema import Kind
from tersely.document.validate import find_problems
from tersely.errors import ConfigError, Problem
from tersely.registry.descriptors import METHODS


@click.command(name="validate")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@layout_option(
    "text",
    "json",
    "github",
    help="How problems are printed; github is for annotations in a workflow.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="The method of a bare config list; by default recognized from its keys.",
)
@click.option(
    "--fix",
    is_flag=True,
    help="Correct mistakes with one right answer: spelling, quotes, misplaced keys.",
)
@job_plugin_options("files")
def command(files: tuple[str, ...], layout: Format, method: Method | None, fix: bool) -> None:
    """Check recipes, jobs and config lists.

    Prints every problem as FILE:LINE:COLUMN: path: message (hint) with its line, and
    exits with 1 when there is one. The kind of each file is detected from its content. A job's
    recipe is checked too.
    """
    checked = [each for file in files for each in _check(file, method)]
    if fix:
        for each in checked:
            done = fix_file(each)
            for problem in done:
                click.echo(f"{describe_problem(each.file, problem)}: fixed", err=True)
        checked = [each for file in files for each in _check(file, method)]
    for line in render(checked, layout):
        click.echo(line)
    for file in files:
        for problem in _not_loaded(file):
            click.echo(f"{describe_problem(file, problem)}", err=True)
    sys.exit(1 if any(each.problems for each in checked) else 0)


def _not_loaded(file: str) -> tuple[Problem, ...]:
    try:
        document = read_file(file)
    except ConfigError:
        return ()  # said already
    found = list(unloaded(document.data, Path(file).resolve().parent))
    written = document.problems([])  # said already
    return tuple(one for one in document.problems(found) if one not in written)


def _check(file: str, method: Method | None) -> list[Checked]:
    kind: Kind | None = None
    try:
        document = read_file(file)
        kind = detect_kind(document, method=method)
        problems = find_problems(document, kind)
    except ConfigError as error:
        return [Checked(file, kind, error.problems)]
    if kind != "job":
        return [Checked(file, kind, problems)]
    return _check_job(file, document, problems=problems)


def _check_job(file: str, document: Document, *, problems: tuple[Problem, ...]) -> list[Checked]:
    written = document.data.get("recipe")
    if not isinstance(written, str) or not written:
        return [Checked(file, "job", problems)]
    try:
        path = recipe_file(document, Path(file).parent, written)
    except ConfigError as error:
        return [Checked(file, "job", (*problems, *error.problems))]
    recipe = _check_recipe(str(path))
    if not problems and not recipe.problems:
        problems = training_problems(document, read_file(path).data)
    return [Checked(file, "job", problems), recipe]


def _check_recipe(file: str) -> Checked:
    try:
        return Checked(file, "recipe", find_problems(read_file(file), "recipe"))
    except ConfigError as error:
        return Checked(file, "recipe", error.problems)
