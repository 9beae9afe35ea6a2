"""Runs side by side: what they measured, how their configs differ, and which layers differ most."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import attrs
import yaml

from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.reporting.report import Report
from tersely.reporting.rows import ReportRow
from tersely.reporting.table import split_metric
from tersely.reporting.timings import spell_bytes
from tersely.text_table import Column, TextTable, boxed

FLOAT_BITS = 32
_LAYERS = 15
_COSTS = ("loss", "error", "perplexity", "mae", "mse", "rmse")


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
    """A target that not all runs treat alike.

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
        """Latency where every run has one, else bytes on disk; first what differs, or None."""
        return self._first(is_quality=False)

    def _first(self, *, is_quality: bool) -> Measure | None:
        whole = [
            one
            for one in self.measures
            if None not in one.values and one.name.startswith(_AFTER) == is_quality
        ]
        if not is_quality:
            whole = [one for one in whole if one.is_cost]
            whole.sort(key=lambda one: (len(set(one.values)) == 1, not one.name.startswith(_TIME)))
        return next(iter(whole), None)

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


_AFTER = "quality: "
_TIME = "time of dense: "


def compare_runs(runs: Sequence[ComparedRun]) -> Comparison:
    """Put finished runs side by side.

    Args:
        runs: at least two.

    Raises:
        SessionFileError: there are fewer than two.
    """
    if len(runs) < 2:  # noqa: PLR2004  # there is nothing beside one
        raise SessionFileError(f"found {len(runs)} run, expected two or more to compare")
    measures = (*_qualities(runs), *_bytes(runs), *_times(runs), *_shares(runs))
    return Comparison(
        runs=tuple(runs),
        measures=measures,
        changes={run.name: _change(runs[0], run) for run in runs[1:]},
        layers=_layers(runs),
    )


def pareto(quality: Measure, cost: Measure) -> tuple[bool, ...]:
    """Tell of each run whether no other one is at least as good in both and better in one.

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


def _measures(
    prefix: str, found: Sequence[Mapping[str, float]], *, is_cost: bool, is_bytes: bool = False
) -> Iterator[Measure]:
    for name in dict.fromkeys(name for one in found for name in one):
        yield Measure(
            name=prefix + name,
            values=tuple(one.get(name) for one in found),
            is_cost=is_cost or name.casefold().endswith(_COSTS),
            is_bytes=is_bytes,
        )


def _qualities(runs: Sequence[ComparedRun]) -> Iterator[Measure]:
    found: list[dict[str, float]] = []
    for run in runs:
        after: dict[str, float] = {}
        for name, value in run.report.metrics.items():
            moment, measure = split_metric(name)
            if moment in ("after", ""):
                after[measure] = value
        found.append(after)
    return _measures(_AFTER, found, is_cost=False)


def _bytes(runs: Sequence[ComparedRun]) -> Iterator[Measure]:
    found = [
        {
            name: size
            for name, size in run.files.items()
            if name.startswith("exports/") or name == "model.safetensors"
        }
        for run in runs
    ]
    return _measures("bytes: ", found, is_cost=True, is_bytes=True)


def _times(runs: Sequence[ComparedRun]) -> Iterator[Measure]:
    found = [
        {
            f"{timing.name}, {one.title}" if one.title else timing.name: timing.ratio
            for one in run.report.benchmarks
            for timing in one.timings[1:]
        }
        for run in runs
    ]
    return _measures(_TIME, found, is_cost=True)


def _shares(runs: Sequence[ComparedRun]) -> Iterator[Measure]:
    found: list[dict[str, float]] = []
    for run in runs:
        report, shares = run.report, {}
        if report.elements:
            shares["sparsity"] = report.sparsity
        if report.quantized_size.elements:
            shares["bits per quantized weight"] = report.quantized_size.bits_per_weight
        found.append(shares)
    return _measures("", found, is_cost=False)


def _change(first: ComparedRun, other: ComparedRun) -> tuple[str, ...]:
    before, after = (_lines(run.job) for run in (first, other))
    return tuple(
        line.rstrip("\n")
        for line in difflib.unified_diff(before, after, fromfile=first.name, tofile=other.name, n=2)
    )


def _lines(job: Mapping[str, Json]) -> list[str]:
    data = {key: value for key, value in job.items() if key != "output"}
    dumped: str = yaml.safe_dump(data, sort_keys=True, allow_unicode=True, width=100)
    return dumped.splitlines(keepends=True)


def _layers(runs: Sequence[ComparedRun]) -> tuple[Layer, ...]:
    found = [_by_target(run.report) for run in runs]
    layers = []
    for name in dict.fromkeys(name for one in found for name in one):
        rows = [one.get(name, []) for one in found]
        treatments = tuple(map(_treatment, rows))
        if len(set(treatments)) > 1:
            elements = max(row.elements or 0 for own in rows for row in own)
            bits = [_bits(own, elements) for own in rows]
            spread = max(bits) - min(bits)
            layers.append(Layer(name=name, treatments=treatments, spread=spread))
    layers.sort(key=lambda layer: -layer.spread)
    return tuple(layers[:_LAYERS])


def _by_target(report: Report) -> dict[str, list[ReportRow]]:
    found: dict[str, list[ReportRow]] = {}
    for row in report.rows:
        if row.method != "distillation" and not row.request.startswith("follows "):
            found.setdefault(row.name, []).append(row)
    return found


def _treatment(rows: Sequence[ReportRow]) -> str:
    words = [
        row.dtype or ("" if row.sparsity is None else f"{100 * row.sparsity:.1f} % masked")
        for row in rows
    ]
    return ", ".join(word for word in words if word) or "dense"


def _bits(rows: Sequence[ReportRow], elements: int) -> float:
    """How many bits a target takes where masked weights take none."""
    bits, kept = float(elements * FLOAT_BITS), 1.0
    for row in rows:
        if row.bits is not None:
            bits = float(row.bits)
        if row.sparsity is not None:
            kept -= row.sparsity
    return bits * kept
