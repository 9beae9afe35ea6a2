"""What a job measures at its end, and how it gets into the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tersely.contracts import RunsExport
from tersely.errors import ConfigError
from tersely.jobs.measuring.benchmarking import resized
from tersely.reporting.report import read_report
from tersely.storage.tensor_file import tensors_in, written_size

Run = Callable[..., str]

EXAMPLE = "import torch\n\n\ndef example():\n    return torch.ones(2, 4)\n"
QUICK = {"seconds": 0.01, "threads": 1}


@pytest.fixture
def measured(workshop: Any) -> Any:
    workshop.code("toy_example.py", EXAMPLE)
    data = {"example": "toy_example:example"}
    workshop.write(data=data, train=None, benchmark={**QUICK, "batch_sizes": [1, 3]})
    return workshop


def test_each_batch_size_has_a_benchmark_of_dense_and_finished(measured: Any, run: Run) -> None:
    said = run()

    report = read_report(measured.output / "report.json")
    assert [one.title for one in report.benchmarks] == ["batch of 1", "batch of 3"]
    for one in report.benchmarks:
        assert [timing.name for timing in one] == ["dense", "finished"]
        assert one.threads == 1
        assert all(timing.median > 0 for timing in one)
    assert "] benchmark\n" in said
    assert "batch of 3, 1 thread" in said


def test_files_are_measured_on_disk(measured: Any, run: Run) -> None:
    run()

    files = read_report(measured.output / "report.json").files
    finished = measured.output / "model.safetensors"
    # The dense model has the same tensors, of which its file would have no digest.
    dense = written_size(tensors_in(finished.read_bytes()))
    assert files == {"dense": dense, "model.safetensors": finished.stat().st_size}
    assert not list(measured.output.rglob("dense.safetensors"))


def test_the_page_and_the_printed_report_begin_with_what_was_measured(
    measured: Any, run: Run
) -> None:
    said = run()

    page = (measured.output / "report.html").read_text()
    printed = said[said.index("write the report") :]
    assert page.index("Bytes on disk") < page.index("Parameters in the model")
    assert "batch of 3, 1 thread" in page
    assert printed.index("bytes on disk") < printed.index("batch of 1") < printed.index("sparsity")


def test_without_batch_sizes_the_example_is_taken_as_it_is(measured: Any, run: Run) -> None:
    measured.write(data={"calibration": "toy_parts:batches"}, train=None, benchmark=QUICK)

    run()

    report = read_report(measured.output / "report.json")
    assert [one.title for one in report.benchmarks] == ["the example inputs"]


def test_a_job_without_inputs_to_measure_with_is_refused_before_it_runs(
    workshop: Any, run: Run
) -> None:
    workshop.write(benchmark={})

    with pytest.raises(ConfigError, match="'benchmark' runs the model on example inputs"):
        run()

    assert workshop.diary() == []


def test_an_export_of_fixed_shapes_is_not_measured_at_several_batch_sizes(
    measured: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tersely_toy

    class Running(tersely_toy.Names, RunsExport):  # type: ignore[misc]  # made in a fixture
        def load(self, path: Path, *, threads: int) -> Callable[..., object]:
            return print

    monkeypatch.setattr(tersely_toy, "Names", Running)
    measured.write(
        data={"example": "toy_example:example"},
        export=[{"format": "toy_names"}],
        benchmark={**QUICK, "batch_sizes": [1, 3]},
    )

    with pytest.raises(ConfigError) as raised:
        run()

    (problem,) = raised.value.problems
    assert problem.path == "export[0]"
    assert "the benchmark has 2 batch sizes" in problem.message
    assert problem.hint is not None
    assert "dynamic_shapes: batch" in problem.hint
    assert measured.diary() == []


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"batch_sizes": [0]}, "benchmark.batch_sizes[0]"),
        ({"seconds": 0}, "benchmark.seconds"),
        ({"threads": 0}, "benchmark.threads"),
        ({"batch_size": [1]}, "benchmark.batch_size"),
    ],
)
def test_wrong_settings_are_problems_of_the_document(
    measured: Any, run: Run, wrong: dict[str, Any], path: str
) -> None:
    measured.write(data={"example": "toy_example:example"}, benchmark=wrong)

    with pytest.raises(ConfigError) as raised:
        run()

    assert [problem.path for problem in raised.value.problems] == [path]


def test_another_benchmark_is_another_job(measured: Any, run: Run, tmp_path: Path) -> None:
    run()
    measured.write(data={"example": "toy_example:example"}, train=None, benchmark=QUICK)

    with pytest.raises(OSError, match="benchmark changed"):
        run(resume=True)


def test_a_batch_is_repeated_or_cut_and_what_is_no_batch_stays() -> None:
    inputs = {
        "rows": torch.tensor([[1], [2]]),
        "mask": torch.tensor([3, 4]),
        "table": torch.ones(5),
    }

    more = resized(inputs, 3)

    assert more["rows"].tolist() == [[1], [2], [1]]
    assert more["mask"].tolist() == [3, 4, 3]
    assert more["table"] is inputs["table"]
    assert resized((inputs["rows"], 7), 1)[0].tolist() == [[1]]
    assert resized({"scale": torch.tensor(2.0)}, 4) == {"scale": torch.tensor(2.0)}


def test_a_job_with_inputs_compares_its_layers_with_the_dense_ones(measured: Any, run: Run) -> None:
    said = run()

    report = read_report(measured.output / "report.json")
    assert "] compare the layers\n" in said
    assert {one.module for one in report.layers} == {row.module for row in report.rows}
    assert all(one.why == "" for one in report.layers)
    assert report.macs["before"] == report.macs["after"] > 0
    assert report.recipe["pruning"]["algorithm"]


def test_a_model_that_is_one_object_is_not_compared_with_itself(workshop: Any, run: Run) -> None:
    workshop.code("toy_example.py", EXAMPLE)
    workshop.code(
        "toy_single.py",
        "import toy_parts\n\nMODEL = toy_parts.build()\n\n\ndef build():\n    return MODEL\n",
    )
    workshop.write(model="toy_single:build", data={"example": "toy_example:example"}, train=None)

    run()

    report = read_report(workshop.output / "report.json")
    assert report.layers == ()
    assert "the job's model is the same object at every call" in report.remarks[-1].text
