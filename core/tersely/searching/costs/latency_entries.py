"""Latencies of single layers, measured in parts at different times and stored with the trials."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import attrs

from tersely.engine.progress import with_progress
from tersely.json_value import Json
from tersely.searching.costs.costing import READINGS, Costing, Reading
from tersely.searching.trials.study import TrialStore
from tersely.storage.digests import digest_of_data

Making: TypeAlias = Callable[[Path], Callable[[], object]]
"""Called with a folder for its files; returns the function to time."""

LATENCY = "latency: "
"""The prefix of the keys of entries in the store."""


@attrs.frozen(eq=False)
class _Open:
    """An entry under measurement: the function that is timed, and the readings so far."""

    part: Json
    reading: Reading
    shares: list[float] = attrs.field(factory=list)


@attrs.frozen(kw_only=True, eq=False)
class Entries:
    """Latencies of single layers, as shares of the dense model's; measured on first use.

    An entry serves many settings, so a short disturbance of the machine would affect all of them.
    Each entry is therefore measured in parts: once when it is first needed, and again after all
    others. The median counts.

    Attributes:
        costing: the dense model and the stopwatch.
        store: where entries are stored.
    """

    costing: Costing
    store: TrialStore
    _known: dict[str, float] = attrs.field(factory=dict, repr=False)
    _open: dict[str, _Open] = attrs.field(factory=dict, repr=False)
    _files: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack, repr=False)

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Keep the functions that are timed while the context lasts."""
        try:
            yield
        finally:
            self._open.clear()
            self._files.close()

    def need(self, described: Mapping[str, Json], make: Making) -> str:
        """Return the key of an entry, and take its first reading if it is not known yet.

        Args:
            described: what identifies the entry; ``part`` is its name for people.
            make: makes the function to time.
        """
        key = LATENCY + digest_of_data(dict(described))
        if key not in self._known and self.store.row(key) is None:
            folder = Path(self._files.enter_context(tempfile.TemporaryDirectory()))
            self._open[key] = _Open(described["part"], self.costing.reading(make(folder)))
            self._read(key)
        return key

    def measure_again(self) -> None:
        """Take the remaining readings of all entries under measurement, in turns."""
        turns = [key for _ in range(READINGS - 1) for key in self._open]
        for key in with_progress(turns, "layers timed again"):
            self._read(key)

    def share(self, key: str) -> float:
        """Return the share of an entry.

        Args:
            key: what `need` returned.
        """
        if key not in self._known:
            row = self.store.row(key)
            if row is None:
                raise LookupError(f"{key} was never measured")
            self._known[key] = float(row["share"])
        return self._known[key]

    def _read(self, key: str) -> None:
        found = self._open[key]
        found.shares.append(found.reading())
        self._known[key] = share = statistics.median(found.shares)
        row: dict[str, Json] = {"part": found.part, "share": share, "readings": [*found.shares]}
        self.store.add_row(key, row)
