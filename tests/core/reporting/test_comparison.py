"""Finished runs side by side: measurements, jobs, targets, and the runs that no other one beats."""

import re
from typing import Any

import attrs
import pytest
from pages import Accessible, Balance
from report_rows import pruned_row

import tersely
from tersely.reporting.comparing.compare import compare_runs
from tersely.reporting.comparing.comparison import ComparedRun, Comparison, Measure, pareto
from tersely.reporting.measuring.timings import Benchmark, Timing
from tersely.reporting.page.comparison_page import render_comparison
from tersely.reporting.report import Report
from tersely.reporting.rows import ReportRow


def row(number: int, **changes: Any) -> ReportRow:
    return pruned_row(**{"module": f"layers.{number}", **changes})


def run(
    name: str, *, accuracy: float, size: int, ratio: float = 0.5, **row_changes: Any
) -> ComparedRun:
    times = [
        Timing(name=what, median=one, low=one, high=one, ratio=one, calls=1)
        for what, one in (("dense", 1.0), ("onnx", ratio))
    ]
    report = Report(
        rows=(row(0, **row_changes), row(1)),
        metrics={"before.accuracy": 0.9, "after.accuracy": accuracy},
        benchmarks=(Benchmark(timings=tuple(times), threads=1, rounds=5, title="batch 1"),),
        versions={"tersely": "0.1.0"},
    )
    job = {"model": "a:b", "recipe": {"sparse_ratio": row_changes.get("sparsity", 0.5)}}
    return ComparedRun(
        name=name,
        report=report,
        job={**job, "output": name},
        files={"model.safetensors": 400, "exports/model.onnx": size, "report.html": 9},
    )


@pytest.fixture
def compared() -> Comparison:
    return compare_runs(
        [
            run("a", accuracy=0.9, size=100, ratio=0.5),
            run("b", accuracy=0.8, size=50, ratio=0.25, masked=6, sparsity=0.75),
            run("c", accuracy=0.7, size=60, ratio=0.5, masked=7, sparsity=0.875),
        ]
    )


def test_quality_bytes_and_latency_stand_beside_one_another(compared: Comparison) -> None:
    assert {one.name: one.values for one in compared.measures} == {
        "quality: accuracy": (0.9, 0.8, 0.7),
        "bytes: model.safetensors": (400, 400, 400),
        "bytes: exports/model.onnx": (100, 50, 60),
        "latency relative to dense: onnx, batch 1": (0.5, 0.25, 0.5),
        "sparsity": (0.5, 10 / 16, 11 / 16),
    }


def test_jobs_differ_by_what_they_say_and_not_by_where_they_write(compared: Comparison) -> None:
    assert compared.changes["b"] == (
        "--- a",
        "+++ b",
        "@@ -1,3 +1,3 @@",
        " model: a:b",
        " recipe:",
        "-  sparse_ratio: 0.5",
        "+  sparse_ratio: 0.75",
    )


def test_equal_jobs_are_said_to_be_equal() -> None:
    compared = compare_runs([run("a", accuracy=0.9, size=1), run("b", accuracy=0.9, size=1)])

    assert compared.changes == {"b": ()}
    assert "b has the job of a" in str(compared)


def test_only_targets_that_differ_are_listed(compared: Comparison) -> None:
    (layer,) = compared.layers

    assert layer.name == "layers.0.weight"
    assert layer.treatments == ("50.0 % masked", "75.0 % masked", "87.5 % masked")
    # Eight weights of 32 bits: half of them are kept, and an eighth.
    assert layer.spread == 8 * 32 * (0.5 - 0.125)


def test_a_measure_that_one_run_lacks_is_a_dash() -> None:
    without = ComparedRun(name="b", report=Report(rows=()), job={}, files={})
    compared = compare_runs([run("a", accuracy=0.9, size=1), without])

    assert compared.quality is None
    assert re.search(r"quality: accuracy\s+│\s+0.9 │\s+- │", str(compared))


@pytest.mark.parametrize(
    ("qualities", "is_cost", "best"),
    [
        ((0.9, 0.8, 0.7), False, (True, True, False)),
        ((0.9, 0.8, 0.7), True, (True, True, True)),
        ((0.9, 0.9, 0.9), False, (False, True, False)),
    ],
)
def test_a_run_is_best_where_no_other_beats_it(
    qualities: tuple[float, ...], is_cost: bool, best: tuple[bool, ...]
) -> None:
    costs = (100, 50, 60) if not is_cost else (50, 60, 70)
    quality = Measure(name="q", values=qualities, is_cost=is_cost)
    cost = Measure(name="c", values=costs, is_cost=True)

    assert pareto(quality, cost) == best


def test_one_run_alone_is_refused() -> None:
    with pytest.raises(tersely.SessionFileError, match="found 1 run, expected two or more"):
        compare_runs([run("a", accuracy=0.9, size=1)])


def test_the_page_is_well_formed_and_loads_nothing(compared: Comparison) -> None:
    page = render_comparison(compared)
    balance = Balance()
    balance.feed(page)

    assert balance.open == []
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert page.count('aria-label="Runs by cost and quality"') == 2  # a wide and a narrow one
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) <= set(ids)
    assert page.count("tersely 0.1.0") == 1
    assert "<ins>+  sparse_ratio: 0.75</ins>" in page


def test_headers_of_a_comparison_have_scopes_and_pictures_have_texts(compared: Comparison) -> None:
    parser = Accessible()

    parser.feed(render_comparison(compared))

    assert parser.faults == []
    assert parser.seen >= {"th", "svg", "table", "pre", "h1", "h2"}


def test_two_runs_have_no_picture() -> None:
    compared = compare_runs([run("a", accuracy=0.9, size=1), run("b", accuracy=0.8, size=2)])

    assert "<svg" not in render_comparison(compared)


def test_runs_of_other_versions_say_which() -> None:
    one, two = run("a", accuracy=0.9, size=1), run("b", accuracy=0.8, size=2)
    newer = attrs.evolve(two.report, versions={"tersely": "0.2.0"})
    compared = compare_runs([one, attrs.evolve(two, report=newer)])

    page = render_comparison(compared)

    assert "<p>a: tersely 0.1.0</p>" in page
    assert "<p>b: tersely 0.2.0</p>" in page


def test_of_several_latencies_the_lowest_is_the_cost(compared: Comparison) -> None:
    onnx = next(one for one in compared.measures if one.name.startswith("latency"))
    finished = attrs.evolve(onnx, name="latency relative to dense: finished", values=(3, 4, 5))
    slower = attrs.evolve(compared, measures=(finished, *compared.measures))

    assert slower.cost == onnx
