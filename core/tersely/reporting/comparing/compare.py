"""Comparing finished runs: what each measured, how jobs differ, and which layers do."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import yaml

from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.reporting.comparing.comparison import (
    QUALITY,
    TIME,
    ComparedRun,
    Comparison,
    Layer,
    Measure,
)
from tersely.reporting.printing.table import split_metric
from tersely.reporting.quantized_size import FLOAT_BITS
from tersely.reporting.report import Report
from tersely.reporting.rows import ReportRow

_LAYERS = 15
_COSTS = ("loss", "error", "perplexity", "mae", "mse", "rmse")


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
    return _measures(QUALITY, found, is_cost=False)


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
    return _measures(TIME, found, is_cost=True)


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
