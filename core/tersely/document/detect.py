"""Detects the kind of a document: a recipe, a job, or a config list of one method."""

from __future__ import annotations

from tersely.contracts.kinds import Method
from tersely.document.entries import PERIODS
from tersely.document.reading.positions import Document
from tersely.document.schemas.schema import Kind
from tersely.document.schemas.spec import read_schema
from tersely.errors import ConfigError, Problem
from tersely.json_value import Json
from tersely.registry.descriptors import METHODS

_ONLY_IN_JOBS = ("model", "recipe", "output", "data", "train", "teacher", "export")


def detect_kind(document: Document, *, method: Method | None = None) -> Kind:
    """Return what a document is meant to be.

    Args:
        document: as it was read.
        method: the method of a bare config list, or None to tell it from the keys.

    Raises:
        ConfigError: it is a config list that might be of any method.
    """
    data = document.data
    if isinstance(data, list):
        return method or _method_of(document)
    if isinstance(data, dict) and not any(key in data for key in (*METHODS, PERIODS)):
        return "job" if any(key in data for key in _ONLY_IN_JOBS) else "recipe"
    return "recipe"


def _method_of(document: Document) -> Method:
    keys = _keys(document.data)
    definitions = read_schema("config_list")["$defs"]
    legal: dict[Method, set[str]] = {
        method: set(definitions[f"{method}_entry"]["properties"]) for method in METHODS
    }
    # The method whose own keys are present; keys that all methods share do not decide.
    shared = set.intersection(*legal.values())
    counts = {method: len(keys & (legal[method] - shared)) for method in METHODS}
    best = [method for method in METHODS if counts[method] == max(counts.values())]
    if len(best) == 1:
        return best[0]
    mark = document.mark(())
    line, column = (mark.line, mark.column) if mark else (None, None)
    message = "found a config list whose keys do not show its method"
    hint = f"name it with --method {'|'.join(METHODS)}"
    raise ConfigError([Problem("", message, hint, line, column)], source=document.source)


def _keys(config_list: Json) -> set[str]:
    keys: set[str] = set()
    for entry in config_list:
        if isinstance(entry, dict):
            keys.update(entry)
            settings = entry.get("target_settings")
            for setting in settings.values() if isinstance(settings, dict) else ():
                keys.update(setting if isinstance(setting, dict) else ())
    return keys
