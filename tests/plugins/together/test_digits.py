"""The example that users run first, from nothing, in a copy of its folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "digits"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, fresh: Any) -> Path:
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("example") / "digits"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".cache", "runs", "__pycache__"))
    run_job(fresh, folder, "job.yaml")
    return folder / "runs" / "digits"


def run_job(fresh: Any, folder: Path, name: str) -> None:
    done = fresh.run("-W", "error", "-m", "tersely.cli.main", "run", name, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_dense_network_reads_the_digits_and_the_pruned_one_still_does(ran: Path) -> None:
    metrics = json.loads((ran / "report.json").read_text())["metrics"]

    assert metrics["before.accuracy"] >= 0.98
    assert metrics["compressed.accuracy"] < metrics["after.accuracy"]
    assert metrics["after.accuracy"] >= 0.97


def test_the_finished_weights_are_as_sparse_as_asked(ran: Path) -> None:
    weights = load_file(ran / "model.safetensors")

    for name, filters in (("conv1", 8), ("conv2", 16), ("conv3", 32)):
        assert int((weights[f"{name}.weight"].flatten(1) == 0).all(1).sum()) == filters
    # 0.7 of 10 x 256 weights.
    assert int((weights["classifier.weight"] == 0).sum()) == 1792


def test_a_pruned_filter_gives_zeros_behind_its_batch_norm(ran: Path) -> None:
    weights = load_file(ran / "model.safetensors")
    pruned = (weights["conv2.weight"].flatten(1) == 0).all(1)

    for name in ("conv2.bias", "norm2.weight", "norm2.bias"):
        assert torch.equal(weights[name] == 0, pruned)


def test_the_report_warns_of_nothing(ran: Path) -> None:
    report = json.loads((ran / "report.json").read_text())

    assert (report["warnings"], report["remarks"]) == ([], [])
    assert (ran / "report.html").stat().st_size > 10_000


def test_the_job_without_a_loop_of_its_own_reads_the_digits_too(ran: Path, fresh: Any) -> None:
    run_job(fresh, ran.parents[1], "loop.yaml")

    output = ran.parent / "loop"
    metrics = json.loads((output / "report.json").read_text())["metrics"]
    assert metrics["after.accuracy"] >= 0.97
    weights = load_file(output / "model.safetensors")
    for name, filters in (("conv1", 8), ("conv2", 16), ("conv3", 32)):
        assert int((weights[f"{name}.weight"].flatten(1) == 0).all(1).sum()) == filters


def test_the_job_that_deploys_ends_in_a_smaller_file_that_onnxruntime_reads(
    ran: Path, fresh: Any
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = ran.parents[1]
    job = folder / "deploy.yaml"
    measured_short = job.read_text().replace("threads: 1}", "threads: 1, seconds: 0.2}")
    assert measured_short != job.read_text()
    job.write_text(measured_short)
    run = "from tersely.jobs.runner import run_job; run_job('deploy.yaml')"
    done = fresh.run("-c", run, cwd=folder)
    assert done.returncode == 0, done.stderr
    output = folder / "runs" / "deploy"

    report = json.loads((output / "report.json").read_text())
    sizes, metrics = report["files"], report["metrics"]
    assert sizes["model.onnx"] == (output / "exports" / "model.onnx").stat().st_size
    assert sizes["model.onnx"] < 0.1 * sizes["dense"]
    # 4 of 450 images; the page loses fewer, but how a processor sums decides about some of them.
    assert metrics["before.accuracy"] - metrics["after.accuracy"] <= 0.009
    measured = [[timing["name"] for timing in one["timings"]] for one in report["benchmarks"]]
    assert measured == [["dense", "finished", "model.onnx"]] * 2
    assert evaluated(onnxruntime, output, folder, fresh) == pytest.approx(
        metrics["after.accuracy"], abs=0.005
    )


def evaluated(onnxruntime: Any, output: Path, folder: Path, fresh: Any) -> float:
    """The accuracy of the exported file on the test images."""
    images = (
        "import numpy, torch; from data import split; _, test = split(); "
        "numpy.savez('test.npz', x=torch.stack([x for x, _ in test]).numpy(), "
        "y=torch.tensor([int(y) for _, y in test]).numpy())"
    )
    assert fresh.run("-c", images, cwd=folder).returncode == 0
    held = numpy.load(folder / "test.npz")
    session = onnxruntime.InferenceSession(str(output / "exports" / "model.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: held["x"]})
    return float((found.argmax(1) == held["y"]).mean())
