"""Targets configured twice, kept as runs of names: many entries on many modules make many."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import attrs

from tersely.contracts.kinds import Method
from tersely.contracts.target_plan import Origin
from tersely.planning.remarks import Shadowed


@attrs.frozen(eq=False)
class _Run:
    # Targets in a row that lost to one entry from another: module, target, module, target, ...
    start: int
    method: Method
    winner: Origin
    loser: Origin
    names: list[str] = attrs.field(factory=list)


class Shadows(Sequence[Shadowed]):
    """A sequence of `Shadowed` that makes each item on access, equal to a tuple of them.

    It grows while a plan is made and is not changed afterwards.
    """

    def __init__(self, rows: Iterable[Shadowed] = ()) -> None:
        self._runs: list[_Run] = []
        self._length = 0
        for row in rows:
            self.add(row.module, row.target, row.method, winner=row.winner, loser=row.loser)

    def add(
        self, module: str, target: str, method: Method, *, winner: Origin, loser: Origin
    ) -> None:
        """Append one target.

        Args:
            module: the module's name.
            target: the target as the loser spelled it.
            method: the method of both entries.
            winner: the entry in force.
            loser: the entry without effect.
        """
        run = self._runs[-1] if self._runs else None
        # Modules of one entry share the object that locates it.
        if run is None or run.winner is not winner or run.loser is not loser:
            run = _Run(self._length, method, winner, loser)
            self._runs.append(run)
        run.names.append(module)
        run.names.append(target)
        self._length += 1

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Shadowed: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Shadowed, ...]: ...

    def __getitem__(self, index: int | slice) -> Shadowed | tuple[Shadowed, ...]:
        if isinstance(index, slice):
            return tuple(self[position] for position in range(*index.indices(self._length)))
        position = range(self._length)[index]
        run = self._runs[bisect_right(self._runs, position, key=lambda one: one.start) - 1]
        return _row(run, 2 * (position - run.start))

    def __iter__(self) -> Iterator[Shadowed]:
        for run in self._runs:
            for place in range(0, len(run.names), 2):
                yield _row(run, place)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Shadows, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(map(Shadowed.__eq__, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def _row(run: _Run, place: int) -> Shadowed:
    module, target = run.names[place : place + 2]
    return Shadowed(module, target, run.method, run.winner, run.loser)
