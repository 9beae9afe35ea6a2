"""Checks ``requires``: every requirement is well formed, installed and of a version that fits."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from tersely.document.entries import recipe_path
from tersely.document.messages.wording import show
from tersely.document.reading.positions import Finding
from tersely.document.schemas.schema import Kind
from tersely.json_value import Json

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_LONGEST = 1000  # characters


def check_requirements(data: Json, kind: Kind) -> Iterator[Finding]:
    """Yield the requirements that are malformed or not met.

    Args:
        data: plain JSON data without what counts as absent; need not fit the schema.
        kind: what the document is.
    """
    path = (*recipe_path(kind), "requires")
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    found: dict[str, tuple[str, str | None] | None] = {}
    versions: dict[str, str | None] = {}
    for index, text in enumerate(data if isinstance(data, list) else []):
        if not isinstance(text, str):
            continue
        if text not in found:
            found[text] = _unmet(text, versions)
        unmet = found[text]
        if unmet is not None:
            yield Finding((*path, index), *unmet)


def _unmet(text: str, versions: dict[str, str | None]) -> tuple[str, str | None] | None:
    requirement = _parse(text)
    if isinstance(requirement, str):
        return requirement, "write a name and a version, as in 'tersely-pruning>=0.1'"
    if requirement is None:
        return None
    name, hint = requirement.name, f"pip install {text!r}"
    if name not in versions:
        versions[name] = _installed_version(name)
    version = versions[name]
    if version is None:
        return f"{name} is required and not installed", hint
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{name} {version} is installed, expected {requirement.specifier}", hint
    return None


def _parse(text: str) -> Requirement | str | None:
    """Return a requirement, what is wrong with it, or None where it does not apply here."""
    # Late: most recipes require nothing, and packaging takes its time to import.
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    reason = f"it has more than {_LONGEST} characters"
    if len(text) <= _LONGEST:
        try:
            requirement = Requirement(text)
            applies = requirement.marker is None or requirement.marker.evaluate()
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
        except RecursionError:
            reason = "it is nested too deeply"
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            return f"the condition of {show(text)} cannot be decided: {error}"
        else:
            return requirement if applies else None
    return f"{show(text)} is not a requirement: {reason}"


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
