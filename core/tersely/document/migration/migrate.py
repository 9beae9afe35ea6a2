"""Rewrites config lists of NNI 1.x and 2.x in this specification, or says why it cannot."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from tersely.document.entries import EXCLUDES, SELECTORS
from tersely.document.migration.legacy import LEGACY_ANY_TYPE, LEGACY_KEYS
from tersely.document.migration.legacy_entry import Rewriting, rewrite_entry
from tersely.document.migration.legacy_quantization import QUANTIZATION_KEYS
from tersely.document.reading.positions import Document
from tersely.document.reading.python_data import read_python
from tersely.errors import ConfigError
from tersely.json_value import Json

_MANY = 1000


def migrate(config_list: Sequence[Json]) -> list[dict[str, Json]]:
    """Rewrite an NNI config list of pruning or quantization in this specification.

    In NNI 1.x and 2.x the last entry that matches a module decides, and an entry with
    ``exclude`` takes back the modules of those before it. In this specification the first entry
    decides for pruning; so where entries might overlap, a migrated pruning list runs backwards.
    A list without keys of NNI 1.x or 2.x comes back as it is.

    Args:
        config_list: the entries as Python data; they are not changed.

    Returns:
        New entries, checked only by the rewriting itself.

    Raises:
        ConfigError: something has no meaning here; holds every such thing.
    """
    return migrate_document(read_python(config_list))


def migrate_document(document: Document) -> list[dict[str, Json]]:
    """Rewrite the config list that a document holds, as `migrate` does.

    Args:
        document: as it was read.

    Raises:
        ConfigError: something has no meaning here; holds every such thing, with its place.
    """
    rewriting = Rewriting()
    entries = rewriting.mappings(document.data)
    is_legacy = any(_is_legacy(entry) for _, entry in entries)
    done: list[dict[str, Json]] = []
    if is_legacy:
        for index, entry in entries:
            if entry.get("exclude") is True:
                _take_back(done, entry, index, rewriting)
            else:
                done.append(rewrite_entry(entry, index, rewriting))
    else:
        done = [copy.deepcopy(entry) for _, entry in entries]
    problems = document.problems(rewriting.findings)
    if problems:
        raise ConfigError(problems, source=document.source)
    is_quantization = any(key in entry for _, entry in entries for key in QUANTIZATION_KEYS)
    if is_legacy and not is_quantization and _may_overlap(done):
        done.reverse()
    return done


def _is_legacy(entry: dict[str, Json]) -> bool:
    types = entry.get("op_types")
    has_any = isinstance(types, list) and LEGACY_ANY_TYPE in types
    return has_any or any(key in LEGACY_KEYS for key in entry)


def _take_back(
    done: list[dict[str, Json]], entry: dict[str, Json], index: int, rewriting: Rewriting
) -> None:
    """Add what an entry with ``exclude`` selects to the excludes of the entries before it."""
    selection = rewrite_entry(entry, index, rewriting, is_exclude=True)
    by_name = any(selection.get(key) for key in SELECTORS[:2])
    if by_name and selection.get("op_types"):
        rewriting.refuse(
            (index, "exclude"),
            "an exclude by both names and types is not supported here",
            "exclude by op_names alone, or by op_types alone",
        )
        return
    for earlier in done:
        for selector, exclude in zip(SELECTORS, EXCLUDES, strict=True):
            new = [name for name in selection.get(selector, ()) if name]
            known = earlier.get(exclude, [])
            added = [name for name in new if name not in known]
            if added:
                earlier[exclude] = [*known, *added]


def _may_overlap(entries: Sequence[dict[str, Json]]) -> bool:
    if len(entries) > _MANY:
        # By pairs it would take hours; the order of entries that are apart does not matter.
        return not (_share_nothing(entries, "op_types") or _share_nothing(entries, "op_names"))
    return any(
        not _are_disjoint(first, second)
        for index, first in enumerate(entries)
        for second in entries[index + 1 :]
    )


def _share_nothing(entries: Sequence[dict[str, Json]], key: str) -> bool:
    names = [name for entry in entries for name in set(entry.get(key, ()))]
    is_by_pattern = key == "op_names" and any(entry.get("op_names_re") for entry in entries)
    is_given = all(entry.get(key) for entry in entries)
    return is_given and not is_by_pattern and len(set(names)) == len(names)


def _are_disjoint(first: dict[str, Json], second: dict[str, Json]) -> bool:
    types = [set(entry.get("op_types", ())) for entry in (first, second)]
    if all(types) and not types[0] & types[1]:
        return True
    names = [set(entry.get("op_names", ())) for entry in (first, second)]
    patterns = any(entry.get("op_names_re") for entry in (first, second))
    return all(names) and not patterns and not names[0] & names[1]
