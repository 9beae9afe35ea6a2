"""Names of repeated blocks as one pattern: ``layer.{0..5}.attention.{query,key}``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeAlias

_Parts: TypeAlias = tuple[tuple[str, ...], ...]

_LISTED = 6
_RUN = 3
"""How many numbers in a row are worth two dots."""


def fold_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return patterns that represent names, each name in exactly one of them.

    Names of equal length that differ in one place are put together, from the last place to the
    first, so that the parts inside a block are listed before the blocks are counted.

    Args:
        names: dotted names of modules or tensors, in the order of the model; the empty one is the
            model itself.

    Returns:
        The patterns, in the order in which their first names come.
    """
    return tuple(pattern for pattern, _ in fold_groups(names))


def fold_groups(names: Iterable[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the patterns of `fold_names`, each with the names that it represents.

    Args:
        names: as for `fold_names`.
    """
    groups: list[_Parts] = [tuple((part,) for part in name.split(".")) for name in names]
    for back in range(1, max(map(len, groups), default=0) + 1):
        groups = _merged(groups, back)
    return tuple(
        (
            ".".join(map(_spell, parts)) or "(root)",
            tuple(".".join(chosen) for chosen in itertools.product(*parts)),
        )
        for parts in groups
    )


def _merged(groups: Sequence[_Parts], back: int) -> list[_Parts]:
    """Put together what differs only in one place, counted from the end."""
    found: dict[tuple[_Parts, ...], list[_Parts]] = {}
    for parts in groups:
        place = len(parts) - back
        # What has no such place stays, and so do the names of parts of the model itself.
        is_alone = place < 0 or (len(parts) == 1 and not parts[0][0].isdecimal())
        key = (parts,) if is_alone else (parts[:place], parts[place + 1 :])
        found.setdefault(key, []).append(parts)
    return [_together(alike, len(alike[0]) - back) for alike in found.values()]


def _together(alike: Sequence[_Parts], place: int) -> _Parts:
    first = alike[0]
    if len(alike) == 1:
        return first
    values = tuple(dict.fromkeys(value for parts in alike for value in parts[place]))
    return (*first[:place], values, *first[place + 1 :])


def _spell(values: tuple[str, ...]) -> str:
    if len(values) == 1:
        return values[0]
    if len(values) >= _RUN and all(value.isdecimal() for value in values):
        first = int(values[0])
        if values == tuple(str(first + index) for index in range(len(values))):
            return f"{{{values[0]}..{values[-1]}}}"
    listed = ",".join(values[:_LISTED])
    more = len(values) - _LISTED
    return f"{{{listed},+{more}}}" if more > 0 else f"{{{listed}}}"
