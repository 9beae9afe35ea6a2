"""Finds the plugin whose own options schema cannot be used, after validation failed on it."""

from __future__ import annotations

from collections.abc import Iterator

from tersely.document.entries import stages_of
from tersely.document.path import Path
from tersely.document.reading.positions import Finding
from tersely.document.schemas.schema import Kind, offline_validator
from tersely.json_value import Json
from tersely.registry.catalog import Catalog
from tersely.registry.descriptors import Descriptor, GranularityInfo
from tersely.registry.record import Registration
from tersely.registry.registry import registry

_EXAMPLES: tuple[Json, ...] = ({}, [], "", 0)
"""One value of each type, so that references in a schema are followed."""


def broken_schemas(data: Json, kind: Kind) -> Iterator[Finding]:
    """Yield a finding for each installed schema that is not a JSON Schema.

    Args:
        data: plain JSON data without what counts as absent.
        kind: what the document is.
    """
    current = registry()
    catalogs: tuple[Catalog[Descriptor], ...] = (
        current.pruners,
        current.quantizers,
        current.schedules,
        current.losses,
        current.granularities,
        current.exporters,
    )
    for catalog in catalogs:
        for name in catalog.names():
            registration = catalog.record(name)
            for schema in _schemas(registration.descriptor):
                reason = _reason(schema)
                if reason is not None:
                    yield Finding(
                        _path(data, kind, registration),
                        f"the options schema of {registration.qualified} {registration.version} "
                        f"cannot be used: {reason}",
                        f"report it to the authors of {registration.distribution}",
                    )


def _schemas(descriptor: Descriptor) -> list[Json]:
    if isinstance(descriptor, GranularityInfo) and descriptor.values is not None:
        return [descriptor.options, descriptor.values]
    return [descriptor.options]


def _reason(schema: Json) -> str | None:
    try:
        validator = offline_validator(schema)
        validator.check_schema(schema)
        for example in _EXAMPLES:
            list(validator.iter_errors(example))
    except Exception as error:  # whatever a plugin's schema makes the validator raise
        return str(getattr(error, "message", error)).splitlines()[0]
    return None


def _path(data: Json, kind: Kind, registration: Registration) -> Path:
    """Where the plugin is named, or the root when it is named somewhere inside an entry."""
    for stage in stages_of(data, kind):
        for key, holder in (("algorithm", stage.data), ("name", stage.data.get("schedule"))):
            name = holder.get(key) if isinstance(holder, dict) else None
            if isinstance(name, str) and _names(registration, name):
                inside = () if key == "algorithm" else ("schedule",)
                return (*stage.path, *inside, key)
    return ()


def _names(registration: Registration, name: str) -> bool:
    return name in (registration.descriptor.name, registration.qualified)
