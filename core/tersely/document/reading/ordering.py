"""The order of a document: which of two places comes first, outer before inner.

A place is ranked by the position of each of its steps, so only what is asked for is looked at::

    {a: 1, b: [{c: 2}]}      a -> (0,)      b -> (1,)      b[0].c -> (1, 0, 0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tersely.document.path import Path
from tersely.json_value import Json

T = TypeVar("T")


class Order:
    """Ranks the places of a document; mutable because it keeps the positions of keys it has seen.

    Args:
        data: plain JSON data, which must not change meanwhile.
    """

    def __init__(self, data: Json) -> None:
        self._data = data
        self._positions: dict[int, dict[str, int]] = {}

    def sorted(self, placed: Sequence[tuple[Path, T]]) -> Sequence[tuple[Path, T]]:
        """Return what belongs to places in the order of the places.

        Args:
            placed: each with its place, one that `rank` takes.
        """
        if len(placed) == 1:
            return placed
        return sorted(placed, key=lambda pair: self.rank(pair[0]))

    def rank(self, path: Path) -> tuple[int, ...]:
        """Return what sorts a place among others.

        Args:
            path: where it is in the data. What is not there has the rank of what is around it,
                and the rank of the whole document where that is not there either.
        """
        value = self._data
        found: list[int] = []
        for depth, step in enumerate(path):
            position = self._position(value, step)
            if position is None:
                return tuple(found) if depth == len(path) - 1 else ()
            found.append(position)
            value = value[step]
        return tuple(found)

    def _position(self, value: Json, step: str | int) -> int | None:
        if isinstance(value, list):
            return step if isinstance(step, int) and step < len(value) else None
        if not isinstance(value, dict) or step not in value:
            return None
        known = self._positions.get(id(value))
        if known is None:
            known = {key: index for index, key in enumerate(value)}
            self._positions[id(value)] = known
        return known[str(step)]
