"""Checks ``requires``: every requirement is well formed, installed and of a version that fits."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from tersely.document.entries import recipe_path
from tersely.document.path import Path
from tersely.document.positions import Finding
from tersely.document.schema import Kind
from tersely.json_value import Json


def check_requirements(data: Json, kind: Kind) -> Iterator[Finding]:
    """Yield the requirements that are malformed or not met.

    Args:
        data: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is.
    """
    path = (*recipe_path(kind), "requires")
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    for index, text in enumerate(data if isinstance(data, list) else []):
        if isinstance(text, str):
            yield from _check(text, (*path, index))


def _check(text: str, path: Path) -> Iterator[Finding]:
    # Late: most recipes require nothing, and packaging takes its time to import.
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        yield Finding(
            path,
            f"{text!r} is not a requirement: {reason}",
            "write a name and a version, as in 'tersely-pruning>=0.1'",
        )
        return
    if requirement.marker is not None and not requirement.marker.evaluate():
        return
    found = _installed_version(requirement.name)
    hint = f"pip install {text!r}"
    if found is None:
        yield Finding(path, f"{requirement.name} is required and not installed", hint)
    elif not requirement.specifier.contains(found, prereleases=True):
        yield Finding(
            path,
            f"{requirement.name} {found} is installed, expected {requirement.specifier}",
            hint,
        )


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
