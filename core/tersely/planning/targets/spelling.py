"""From the spelling of a granularity in a document to its plugin and object (rules G1 and G2)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import cast

import attrs
from jsonschema import Draft202012Validator

from tersely.contracts.granularity import Granularity
from tersely.contracts.settings import DEFAULT_GRANULARITY
from tersely.errors import BrokenPluginError, PluginError
from tersely.json_value import Json
from tersely.registry.descriptors import GranularityInfo
from tersely.registry.kinds import GRANULARITY
from tersely.registry.record import same_distribution
from tersely.registry.registry import Registry, registry
from tersely.text import nearest


@attrs.frozen(eq=False)
class Spelling:
    """A parsed granularity value.

    Attributes:
        name: the granularity's name in the registry, short or qualified as it was written.
        arguments: keyword arguments of its implementation.
        info: its descriptor.
    """

    name: str
    arguments: dict[str, Json]
    info: GranularityInfo


def understand(value: Json) -> Spelling:
    """Find the granularity that a value of the document means.

    Args:
        value: a name, ``{name: options}``, or any value some granularity accepts.

    Raises:
        ValueError: no installed granularity accepts it; the text names the nearest.
    """
    return _understand(json.dumps(value, sort_keys=True), registry(), registry().revision)


@lru_cache(maxsize=1024)
def _understand(encoded: str, plugins: Registry, revision: int) -> Spelling:
    value = json.loads(encoded)
    catalog = plugins.granularities
    named = _named(value, plugins)
    if named is not None:
        return named
    accepting = [
        name
        for name in catalog.names()
        if (schema := catalog.info(name).values) is not None
        and Draft202012Validator(schema).is_valid(value)
    ]
    official = [
        name
        for name in accepting
        if same_distribution(catalog.record(name).distribution, GRANULARITY.family or "")
    ]
    # Nothing takes a spelling of the specification away from the distribution that it comes with.
    accepting = official or accepting
    if len(accepting) == 1:
        return Spelling(accepting[0], {"value": value}, catalog.info(accepting[0]))
    if accepting:
        first = shown({accepting[0]: {"value": value}})
        raise ValueError(
            f"{len(accepting)} granularities accept {shown(value)}: {', '.join(accepting)}; say "
            f"which one, as in {first}"
        )
    near = nearest(value, catalog.names()) if isinstance(value, str) else ()
    hint = f"; did you mean {near[0]!r}?" if near else ""
    names = ", ".join([DEFAULT_GRANULARITY, *catalog.names()])
    missing = "" if catalog.names() else " (tersely-granularity is not installed)"
    raise ValueError(
        f"no installed granularity accepts {shown(value)}; known: {names}{missing}{hint}"
    )


def _named(value: Json, plugins: Registry) -> Spelling | None:
    # A name, or {name: options}; both short or qualified.
    catalog = plugins.granularities
    name = value
    options: Json = {}
    if isinstance(value, dict) and len(value) == 1:
        name, options = next(iter(value.items()))
    if not isinstance(name, str) or not isinstance(options, dict) or name not in catalog:
        return None
    info = catalog.info(name)
    if Draft202012Validator(info.options).is_valid(options):
        return Spelling(name, dict(options), info)
    if isinstance(value, str):
        needed = ", ".join(info.options.get("required", ()))
        raise ValueError(f"granularity {shown(value)} needs its options: {needed}")
    return None


def implementation(value: Json) -> Granularity:
    """Return the granularity object for a value, made once.

    Args:
        value: the granularity as the document spells it.

    Raises:
        ValueError: as in `understand`, or the granularity refuses the value.
        BrokenPluginError: its plugin cannot be imported or fails.
    """
    return _implementation(json.dumps(value, sort_keys=True), registry(), registry().revision)


@lru_cache(maxsize=1024)
def _implementation(encoded: str, plugins: Registry, revision: int) -> Granularity:
    value = json.loads(encoded)
    spelling = understand(value)
    make = plugins.granularities[spelling.name]
    try:
        return cast("Granularity", make(**spelling.arguments))
    except (ValueError, PluginError):
        raise
    except Exception as error:  # foreign code may raise anything
        raise BrokenPluginError(
            f"granularity {shown(value)} cannot be made: {type(error).__name__}: {error}",
            plugin=spelling.name,
        ) from error


def shown(value: Json) -> str:
    """Return a granularity as messages show it.

    Args:
        value: the granularity as the document spells it.
    """
    return json.dumps(value)


def article(noun: str) -> str:
    """Return the indefinite article of a noun.

    Args:
        noun: such as ``input``.
    """
    return "an" if noun[0] in "aeiou" else "a"
