"""Runs side by side: what they measured, how their configs differ, and which layers differ most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from tersely.json_value import Json
from tersely.reporting.measuring.timings import spell_bytes
from tersely.reporting.report import Report
from tersely.text_table import Column, TextTable, boxed

QUALITY = "quality: "
"""How the names of measurements after the job begin."""

TIME = "latency relative to dense: "
"""How the names of measured times begin, each a share of the dense model's."""


@attrs.frozen(kw_only=True)
class ComparedRun:
    """A finished run, as far as it is compared.

    Attributes:
        name: what it is called.
        report: its report.
        job: its job as plain data, the recipe in place of the recipe's path.
        files: files of its result -> bytes on disk.
    """

    name: str
    report: Report
    job: Mapping[str, Json]
    files: Mapping[str, int]


@attrs.frozen(kw_only=True)
class Measure:
    """One measurement of each run.

    Attributes:
        name: what was measured.
        values: one for each run, None where a run has no such measurement.
        is_cost: whether less is better.
        is_bytes: whether the values are bytes.
    """

    name: str
    values: tuple[float | None, ...]
    is_cost: bool
    is_bytes: bool = False

    def spelled(self) -> tuple[str, ...]:
        """Return the values as people read them."""
        return tuple("-" if value is None else self._spell(value) for value in self.values)

    def _spell(self, value: float) -> str:
        return spell_bytes(int(value)) if self.is_bytes else f"{value:.4g}"


@attrs.frozen(kw_only=True)
class Layer:
    """A target that not all runs treat the same way.

    Attributes:
        name: the target's full name.
        treatments: what each run did to it, as words.
        spread: between how many bits it takes in these runs at least and at most.
    """

    name: str
    treatments: tuple[str, ...]
    spread: float


@attrs.frozen(kw_only=True)
class Comparison:
    """Runs side by side; prints as text.

    Attributes:
        runs: the runs, in the order they were given.
        measures: quality first, then bytes on disk, latency and sparsity.
        changes: for each run but the first, how its job differs from the first one's, as the lines
            of a unified diff; empty where it does not.
        layers: the targets that differ most, first the one with the most bits between two runs.
    """

    runs: tuple[ComparedRun, ...]
    measures: tuple[Measure, ...]
    changes: Mapping[str, tuple[str, ...]]
    layers: tuple[Layer, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the runs."""
        return tuple(run.name for run in self.runs)

    @property
    def quality(self) -> Measure | None:
        """The first measure of quality that every run has, or None."""
        return self._first(is_quality=True)

    @property
    def cost(self) -> Measure | None:
        """Latency where every run has one, else bytes on disk; None without either.

        Of several, one that differs; of latencies the lowest, that of what will be deployed.
        """
        return self._first(is_quality=False)

    def _first(self, *, is_quality: bool) -> Measure | None:
        whole = [
            one
            for one in self.measures
            if None not in one.values and one.name.startswith(QUALITY) == is_quality
        ]
        if not is_quality:
            whole = [one for one in whole if one.is_cost]
            whole.sort(key=_order)
        return next(iter(whole), None)

    @property
    def versions(self) -> dict[str, str]:
        """The versions used, as ``tersely 0.1.0, ...`` -> the names of the runs that used them."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            spelled = ", ".join(f"{name} {one}" for name, one in run.report.versions.items())
            found.setdefault(spelled, []).append(run.name)
        return {spelled: ", ".join(names) for spelled, names in found.items()}

    def tables(self) -> Iterator[TextTable]:
        """Yield the measurements, and the layers that differ most where there are any."""
        yield _table("measure", self.names, [(one.name, one.spelled()) for one in self.measures])
        if self.layers:
            rows = [(one.name, one.treatments) for one in self.layers]
            yield _table("target", self.names, rows)

    def __str__(self) -> str:
        measured, *layers = self.tables()
        lines = [*boxed(measured)]
        for name, change in self.changes.items():
            lines += ["", *(change or (f"{name} has the job of {self.names[0]}",))]
        for table in layers:
            lines += ["", *boxed(table)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Json]:
        """Return the comparison as JSON data."""
        return {
            "runs": list(self.names),
            "measures": [attrs.asdict(one) for one in self.measures],
            "changes": {name: list(lines) for name, lines in self.changes.items()},
            "layers": [attrs.asdict(one) for one in self.layers],
        }


def _order(cost: Measure) -> tuple[bool, bool, float]:
    is_time = cost.name.startswith(TIME)
    lowest = min(value or 0.0 for value in cost.values)
    return len(set(cost.values)) == 1, not is_time, lowest if is_time else 0.0


def pareto(quality: Measure, cost: Measure) -> tuple[bool, ...]:
    """Tell for each run whether no other is at least as good in both and better in one.

    Args:
        quality: a measure that every run has.
        cost: another one.
    """
    sign = -1 if quality.is_cost else 1
    points = [
        (sign * (good or 0), -(bad or 0))
        for good, bad in zip(quality.values, cost.values, strict=True)
    ]
    return tuple(
        not any(
            other != point and other[0] >= point[0] and other[1] >= point[1] for other in points
        )
        for point in points
    )


def _table(
    heading: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> TextTable:
    columns = (Column(heading=heading), *(Column(heading=name, is_number=True) for name in names))
    return TextTable(columns=columns, rows=tuple((name, *cells) for name, cells in rows))
