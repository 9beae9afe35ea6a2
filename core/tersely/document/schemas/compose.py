"""One self-contained JSON Schema out of the specification's files and every installed plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tersely.contracts.kinds import Method
from tersely.document.schemas.spec import read_schema
from tersely.json_value import Json
from tersely.registry.descriptors import Descriptor, GranularityInfo

if TYPE_CHECKING:
    from tersely.registry.catalog import Catalog
    from tersely.registry.record import Registration
    from tersely.registry.registry import Registry

CATALOG = "registry: "
"""How the ``$comment`` of a schema that lists a catalog's names begins."""

_PREFIX = "urn:tersely:spec:"
_STAGE_CATALOGS: tuple[tuple[Method, str, str], ...] = (
    ("pruning", "pruner_name", "pruners"),
    ("quantization", "quantizer_name", "quantizers"),
)


def compose(registry: Registry) -> dict[str, Json]:
    """Return every definition of the specification, closed over what is installed.

    Args:
        registry: provides the names, and the schemas of their options.

    Returns:
        Name -> schema, for ``$defs``: ``recipe``, ``job``, ``pruning_config_list``
        and so on; every ``$ref`` in it is ``#/$defs/<name>``.
    """
    definitions: dict[str, Json] = {}
    for name in ("config_list", "recipe", "job"):
        document = _localize(read_schema(name))
        definitions.update(document.pop("$defs"))
        definitions[name] = {
            key: value for key, value in document.items() if key not in ("$schema", "$id")
        }
    for method, name, catalog_name in _STAGE_CATALOGS:
        catalog = getattr(registry, catalog_name)
        definitions[name] = _closed(definitions[name], catalog, catalog_name)
        stage = definitions[f"{method}_stage"]
        stage["allOf"] = _options_by_name(catalog, key="algorithm", title=stage["title"])
    definitions["schedule_name"] = _closed(
        definitions["schedule_name"], registry.schedules, "schedules"
    )
    definitions["schedule"]["allOf"] = _options_by_name(
        registry.schedules, key="name", title=definitions["schedule"]["title"]
    )
    definitions["exporter_name"] = _closed(
        definitions["exporter_name"], registry.exporters, "exporters"
    )
    definitions["export"]["allOf"] = _options_by_name(
        registry.exporters, key="format", title=definitions["export"]["title"]
    )
    definitions["loss"] = _choice(definitions["loss"], registry.losses, catalog_name="losses")
    definitions["granularity"] = _choice(
        definitions["granularity"],
        registry.granularities,
        catalog_name="granularities",
        more_names=("default",),
        values=list(_values(registry.granularities)),
    )
    return definitions


def needs(catalog: Catalog[Descriptor], name: str) -> tuple[str, ...]:
    """Return the options that have to be given for a name.

    Args:
        catalog: where the name is registered.
        name: short or qualified.
    """
    return tuple(catalog.info(name).options.get("required", ()))


def reachable(definitions: Mapping[str, Json], name: str) -> dict[str, Json]:
    """Return a definition and those it refers to, in their order.

    Args:
        definitions: what `compose` returned.
        name: the definition to begin with.
    """
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(_references(definitions[current]))
    return {key: value for key, value in definitions.items() if key in seen}


def _localize(value: Json) -> Json:
    if isinstance(value, dict):
        return {
            key: _local_reference(item) if key == "$ref" else _localize(item)
            for key, item in value.items()
        }
    return [_localize(item) for item in value] if isinstance(value, list) else value


def _local_reference(reference: str) -> str:
    document, _, fragment = reference.partition("#")
    return f"#{fragment}" if fragment else f"#/$defs/{document.removeprefix(_PREFIX)}"


def _references(value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        if "$id" in value:  # a plugin's own schema: its references are its own
            return
        for key, item in value.items():
            if key == "$ref":
                yield item.removeprefix("#/$defs/")
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _registrations(catalog: Catalog[Descriptor]) -> list[tuple[tuple[str, ...], Registration]]:
    pairs = []
    for name in catalog.names():
        registration = catalog.record(name)
        pairs.append((tuple(dict.fromkeys((name, registration.qualified))), registration))
    return pairs


def _closed(schema: Mapping[str, Json], catalog: Catalog[Descriptor], name: str) -> dict[str, Json]:
    spellings = [spelling for names, _ in _registrations(catalog) for spelling in names]
    # Short names first: editors and messages list them in this order.
    ordered = sorted(spellings, key=lambda spelling: (":" in spelling, spelling))
    return {
        "description": schema["description"],
        "$comment": CATALOG + name,
        "type": "string",
        "enum": ordered,
    }


def _options_by_name(catalog: Catalog[Descriptor], *, key: str, title: str) -> list[Json]:
    rules = []
    for names, registration in _registrations(catalog):
        options = _options(registration)
        if options.get("type") == "object":  # the specification says so already
            del options["type"]
        then: dict[str, Json] = {"title": title, "properties": {"options": options}}
        if registration.descriptor.options.get("required"):
            then["required"] = ["options"]
        rules.append({"if": _is_named(key, names), "then": then})
    return rules


def _is_named(key: str, names: Sequence[str]) -> dict[str, Json]:
    return {"properties": {key: {"enum": list(names)}}, "required": [key]}


def _choice(
    schema: Mapping[str, Json],
    catalog: Catalog[Descriptor],
    *,
    catalog_name: str,
    more_names: Sequence[str] = (),
    values: Sequence[Json] = (),
) -> dict[str, Json]:
    names = _closed(schema, catalog, catalog_name)
    del names["description"]
    # A name alone does not suffice where options are required.
    names["enum"] = [*more_names, *(name for name in names["enum"] if not needs(catalog, name))]
    by_options = {
        spelling: _options(registration)
        for spellings, registration in _registrations(catalog)
        for spelling in spellings
    }
    with_options = {
        "type": "object",
        "title": "{name: {option: value}}",
        "$comment": CATALOG + catalog_name,
        "properties": by_options,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {
        "description": schema["description"],
        "anyOf": [names, with_options, *values, {"type": "null"}],
    }


def _values(catalog: Catalog[GranularityInfo]) -> Iterator[dict[str, Json]]:
    for name in catalog.names():
        values = catalog.info(name).values
        if values is not None:
            address = f"{catalog.record(name).qualified}:values"
            yield _embedded(values, title=None, address=address)


def _options(registration: Registration) -> dict[str, Json]:
    descriptor = registration.descriptor
    return _embedded(
        descriptor.options,
        title=f"the options of {descriptor.name}",
        address=registration.qualified,
    )


def _embedded(schema: Mapping[str, Json], *, title: str | None, address: str) -> dict[str, Json]:
    embedded = dict(schema)
    embedded.pop("$schema", None)
    if title is not None:
        embedded.setdefault("title", title)
    if "$id" not in embedded and "'$ref'" in repr(schema):
        # A schema with references of its own needs an address of its own for them.
        embedded["$id"] = f"urn:tersely:plugin:{address}"
    return embedded
