"""From a checked document to frozen data: recipes, jobs and config lists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tersely.contracts.kinds import Method
from tersely.document.build import Site, build_entries, build_job, build_recipe
from tersely.document.entries import recipe_path, without_absent
from tersely.document.job import Job
from tersely.document.path import Path as DataPath
from tersely.document.reading.positions import Document
from tersely.document.reading.source import read_document, read_file, uncollected
from tersely.document.recipe import Entry, Recipe
from tersely.document.rules.loop import check_loop
from tersely.document.rules.plugin_files import unloaded
from tersely.document.rules.shrinking import check_example
from tersely.document.rules.training import check_training
from tersely.document.validate import check
from tersely.errors import ConfigError, Problem
from tersely.json_value import Json


def load_recipe(source: str | os.PathLike[str] | Mapping[str, Json]) -> Recipe:
    """Load and check a recipe.

    Args:
        source: the path of a YAML or JSON file, or the recipe as Python data.

    Returns:
        The recipe; whatever the document leaves out has its default.

    Raises:
        ConfigError: the document has mistakes; holds every one of them.
    """
    document = read_document(source)
    with uncollected(document.characters):
        return build_recipe(check(document, "recipe"), Site(document))


# `Recipe(pruning=...)` is built as a document is.
Recipe.load = load_recipe


def load_job(path: str | os.PathLike[str]) -> Job:
    """Load and check a job and its recipe; references are not imported.

    Args:
        path: the job's YAML or JSON file.

    Returns:
        The job, with absolute folders.

    Raises:
        ConfigError: the job has mistakes, or else its recipe has; holds every one of them.
    """
    return _build(read_file(path), Path(path).resolve().parent)


def job_from_data(data: Mapping[str, Json], directory: Path) -> Job:
    """Check a job given as plain data, such as a run keeps.

    Args:
        data: the job.
        directory: the folder that its paths and references are seen from, absolute.

    Raises:
        ConfigError: the job or its recipe has mistakes; holds every one of them.
    """
    return _build(read_document(data), directory)


def _build(document: Document, directory: Path) -> Job:
    missing = document.problems(list(unloaded(document.data, directory)))
    if missing:
        # First, because the names that these files provide are unknown without them.
        raise ConfigError(missing, source=document.source)
    data = check(document, "job")
    written = data["recipe"]
    if isinstance(written, str):
        recipe = load_recipe(recipe_file(document, directory, written))
        problems = training_problems(document, recipe.document)
        if problems:
            raise ConfigError(problems, source=document.source)
    else:
        recipe = build_recipe(written, Site(document, recipe_path("job")))
    return build_job(data, document, directory=directory, recipe=recipe)


def training_problems(document: Document, recipe: Json) -> tuple[Problem, ...]:
    """Return what a job lacks for a recipe in a separate file.

    Args:
        document: the job, without mistakes so far.
        recipe: the recipe as plain data.
    """
    job = without_absent(document.data, "job")
    findings = [
        finding
        for check_beside in (check_training, check_loop, check_example)
        for finding in check_beside(job, "job", recipe=recipe, path=("recipe",))
    ]
    return document.problems(findings)


def parse_config_list(method: Method, config_list: Sequence[Json]) -> tuple[Entry, ...]:
    """Check a bare config list.

    Args:
        method: pruning, quantization or distillation.
        config_list: the entries as Python data.

    Returns:
        The entries; their paths begin with their index, as in ``[0]``.

    Raises:
        ConfigError: the list has mistakes; holds every one of them.
    """
    document = read_document(config_list)
    return build_entries(check(document, method), Site(document))


def recipe_file(document: Document, directory: Path, written: str) -> Path:
    """Return the recipe file that a job names.

    Args:
        document: the job's document, for the place of a mistake.
        directory: the job's folder.
        written: the path as written in the job.

    Raises:
        ConfigError: there is no such file.
    """
    path = directory / written
    if path.is_file():
        return path
    where: DataPath = ("recipe",)
    mark = document.mark(where)
    line, column = (mark.line, mark.column) if mark else (None, None)
    message = f"found {written!r}, expected a recipe file: there is no file {str(path)!r}"
    hint = "the path is relative to the job's own folder"
    raise ConfigError([Problem("recipe", message, hint, line, column)], source=document.source)
