"""What a benchmark measured, as frozen data that prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import attrs

from tersely.json_value import Json
from tersely.text import did_you_mean
from tersely.text_table import Column, TextTable, boxed

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@attrs.frozen(kw_only=True)
class Timing:
    """How long one candidate takes.

    Attributes:
        name: what it is called.
        median: seconds of a call.
        low: seconds that a quarter of the rounds stayed below.
        high: seconds that a quarter of the rounds exceeded.
        ratio: the median, over rounds, of its time to that of the first candidate in the same
            round; 1 for the first.
        calls: how many calls were timed.
        peak_memory: bytes by which the first call raised the memory in use at its peak, or None
            where the system does not tell.
    """

    name: str
    median: float
    low: float
    high: float
    ratio: float
    calls: int
    peak_memory: int | None = None


@attrs.frozen(kw_only=True)
class Benchmark:
    """Candidates that were measured in turns; indexed by name, iterable, and prints as a table.

    Attributes:
        timings: one for each candidate, in the order they were given.
        threads: how many threads PyTorch computed with.
        rounds: how often each candidate had its turn.
        title: what was measured, such as the batch size, or nothing.
    """

    timings: tuple[Timing, ...]
    threads: int
    rounds: int
    title: str = ""

    def __getitem__(self, name: str) -> Timing:
        for timing in self.timings:
            if timing.name == name:
                return timing
        hint = did_you_mean(name, [timing.name for timing in self.timings])
        raise KeyError(f"no candidate is called {name!r}{f'; {hint}' if hint else ''}")

    def __iter__(self) -> Iterator[Timing]:
        return iter(self.timings)

    def __len__(self) -> int:
        return len(self.timings)

    def to_dict(self) -> dict[str, Json]:
        """Return the measurements as JSON data."""
        return {**attrs.asdict(self), "timings": [attrs.asdict(one) for one in self.timings]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Json]) -> Benchmark:
        """Rebuild measurements from what `to_dict` returned.

        Args:
            data: JSON data.

        Raises:
            KeyError: a part is missing.
            TypeError: a part has fields this version does not know.
        """
        timings = tuple(Timing(**timing) for timing in data["timings"])
        return cls(**{**data, "timings": timings})

    def table(self) -> TextTable:
        """Return the measurements as a table."""
        heading = f"{self.title}, " if self.title else ""
        columns = (
            Column(heading=f"{heading}{self.threads} thread{'s' * (self.threads != 1)}"),
            Column(heading="median", is_number=True),
            Column(heading="quartiles", is_number=True),
            Column(heading="ratio", is_number=True),
            Column(heading="peak memory", is_number=True),
        )
        rows = tuple(
            (
                one.name,
                spell_seconds(one.median),
                f"{spell_seconds(one.low)} to {spell_seconds(one.high)}",
                f"{one.ratio:.3f}",
                "unknown" if one.peak_memory is None else spell_bytes(one.peak_memory),
            )
            for one in self.timings
        )
        return TextTable(columns=columns, rows=rows)

    def __str__(self) -> str:
        return "\n".join(boxed(self.table()))


def spell_seconds(seconds: float) -> str:
    """Return a duration with three significant digits and a unit.

    Args:
        seconds: not negative.
    """
    for size, unit in _UNITS:
        if seconds >= size or unit == "µs":
            return f"{_three_digits(seconds / size)} {unit}"
    raise AssertionError("the last unit takes everything")


def spell_bytes(count: int) -> str:
    """Return a number of bytes with three significant digits and a decimal unit.

    Args:
        count: not negative.
    """
    for size, unit in _SIZES:
        if count >= size:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count} bytes"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{decimals}f}"
