"""Mistakes hidden by a misspelt key: what is below it is checked under the right name.

The schema does not describe what is below ``distilation``, so a document is checked again with
such keys spelt right, and the mistakes found below them are reported at their places as written::

    distilation:            unknown key (did you mean 'distillation'?)
      algorithm: [kl]       ... found only the second time
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from tersely.document.path import Path
from tersely.document.reading.positions import Finding
from tersely.json_value import Json

_ROUNDS = 4  # misspelt keys inside one another


def with_hidden(data: Json, find: Callable[[Json], list[Finding]]) -> list[Finding]:
    """Return the mistakes of a document, those below misspelt keys included.

    Args:
        data: plain JSON data without what counts as absent.
        find: finds what is wrong with such data.
    """
    findings = find(data)
    shown = list(findings)
    written: dict[Path, Path] = {}
    for _ in range(_ROUNDS):
        renamed = dict(_hiding(findings, data))
        if not renamed:
            break
        data = _renamed(data, (), {path: to[-1] for path, to in renamed.items()})
        written |= {to: path for path, to in renamed.items()}
        findings = find(data)
        targets = frozenset(renamed.values())
        shown += [
            attrs.evolve(finding, path=_as_written(finding.path, written), fix=None)
            for finding in findings
            if _is_below(finding.path, targets)
        ]
    return shown


def _hiding(findings: list[Finding], data: Json) -> Iterator[tuple[Path, Path]]:
    """Yield path and right path of every key in its place that is misspelt, above further keys."""
    for finding in findings:
        fix = finding.fix
        if fix is None or not fix.keeps_value or fix.path[:-1] != fix.to[:-1]:
            continue
        holder = data
        for part in fix.path[:-1]:
            holder = holder[part]
        if isinstance(holder[fix.path[-1]], (dict, list)) and fix.to[-1] not in holder:
            yield fix.path, fix.to


def _is_below(path: Path, places: frozenset[Path]) -> bool:
    return any(path[:length] in places for length in range(1, len(path) + 1))


def _renamed(data: Json, path: Path, names: dict[Path, str | int]) -> Json:
    if isinstance(data, dict):
        return {
            names.get((*path, key), key): _renamed(value, (*path, key), names)
            for key, value in data.items()
        }
    if isinstance(data, list):
        return [_renamed(value, (*path, index), names) for index, value in enumerate(data)]
    return data


def _as_written(path: Path, written: dict[Path, Path]) -> Path:
    for length in range(len(path), 0, -1):
        if path[:length] in written:
            return (*_as_written(written[path[:length]], written), *path[length:])
    return path
