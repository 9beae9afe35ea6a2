"""``tersely plan``: what a recipe or job would do to a model, before anything is done."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from tersely.cli.options.output import layout_option
from tersely.cli.options.plugin_files import job_plugin_options
from tersely.cli.writing import write_file
from tersely.document.reading.source import read_document

if TYPE_CHECKING:
    from torch import nn

    from tersely.document.recipe import Recipe


@click.command("plan")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model",
    metavar="MODULE:CALLABLE",
    help="The callable that builds the model; a job names its own.",
)
@click.option(
    "--example",
    metavar="MODULE:CALLABLE",
    help="The callable that returns example inputs, for keys set to auto; a job names its own.",
)
@layout_option("summary", "json", help="A summary for people, or JSON.")
@click.option("--rows", is_flag=True, help="Add a row for each target.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the plan as JSON, for `tersely run --plan`.",
)
@click.option("--strict", is_flag=True, help="Treat names and types that match nothing as errors.")
@job_plugin_options("file")
def command(
    file: Path,
    *,
    model: str | None,
    example: str | None,
    layout: str,
    rows: bool,
    out: Path | None,
    strict: bool,
) -> None:
    """Resolve FILE, a recipe or a job, against a model and print what would be done."""
    # Here, because planning imports torch and other commands do without.
    from tersely.jobs.references import job_imports
    from tersely.planning.resolve import PlanWarning
    from tersely.planning.resolve import plan as resolve
    from tersely.planning.table import plan_rows
    from tersely.reporting.printing.plan_summary import summarize_plan

    folder = file.absolute().parent
    with job_imports(Path.cwd()), job_imports(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", PlanWarning)  # the table shows the same and more
        recipe, built, teacher, inputs = _ingredients(file, folder, model, example)
        if strict:
            recipe = attrs.evolve(recipe, strict=True)
        resolved = resolve(built, recipe, teacher=teacher, example_inputs=inputs)
    data = json.dumps(resolved.to_dict(), indent=2)
    if layout == "json":
        click.echo(data)
    else:
        width = min(shutil.get_terminal_size().columns, _WIDEST)
        click.echo(summarize_plan(resolved, built, width=width))
        if rows:
            click.echo("\n".join(plan_rows(resolved)))
    if out is not None:
        write_file(out, data + "\n")


_WIDEST = 120  # longer lines are hard to read


def _ingredients(
    file: Path, folder: Path, model: str | None, example: str | None
) -> tuple[Recipe, nn.Module, nn.Module | None, Any]:
    # Here, because jobs import torch and other commands do without.
    from tersely.document.load import load_job, load_recipe
    from tersely.jobs.calibrating import example_named
    from tersely.jobs.references import load_reference
    from tersely.jobs.shrinking import has_use_for_example

    inputs = None
    if example is not None:
        inputs = load_reference(example, path="--example", folder=folder)()
    if not is_job(file):
        if model is None:
            raise click.UsageError(
                f"{file} is a recipe and names no model; say which with --model module:callable"
            )
        recipe = load_recipe(file)
        return recipe, load_reference(model, path="--model", folder=folder)(), None, inputs
    job = load_job(file)
    build = load_reference(model or job.model, path="--model" if model else "model", folder=folder)
    teacher = None
    if job.teacher is not None:
        teacher = load_reference(job.teacher, path="teacher", folder=folder)(**job.teacher_args)
    if inputs is None and has_use_for_example(job):
        inputs = example_named(job)
    return job.recipe, build() if model else build(**job.model_args), teacher, inputs


def is_job(file: Path) -> bool:
    """Tell whether a file is a job: a mapping with a model and a recipe.

    Args:
        file: a YAML or JSON file.

    Raises:
        ConfigError: it cannot be read.
    """
    data = read_document(file).data
    return isinstance(data, dict) and "model" in data
