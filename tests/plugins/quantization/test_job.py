"""A job that quantizes: alone, with pruning and training, and without the batches it needs."""

import io
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages.sessions import CALIBRATE_FIRST, RANGE_OF_CALIBRATION, STAYS_INSTRUMENTED
from rich.console import Console

import tersely
from tersely.jobs.runner import run_job

CODE = """
import torch


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def batches():
    return [torch.ones(2, 4), -torch.ones(2, 4)]


def finetune(model, session):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        session.total_loss(model(torch.ones(4, 4)).square().mean()).backward()
        optimizer.step()
        session.step()
"""
WEIGHTS = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"}
BOTH = {**WEIGHTS, "target_names": ["_input_", "weight"]}


def job(folder: Path, recipe: dict[str, Any], **changes: Any) -> Path:
    (folder / "quantized_parts.py").write_text(textwrap.dedent(CODE))
    document = {"model": "quantized_parts:build", "recipe": recipe, "output": "out", **changes}
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    return folder / "job.yaml"


def run(file: Path) -> tersely.Report:
    return run_job(file, console=Console(file=io.StringIO(), width=200))


def test_a_job_may_only_quantize(tmp_path: Path) -> None:
    file = job(tmp_path, {"quantization": {"algorithm": "ptq", "config_list": [WEIGHTS]}})

    report = run(file)

    # 48 weights of 8 bits and 2 scales of 32.
    assert report.quantized_size.bits == 48 * 8 + 2 * 32
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "ptq int8 symmetric" in page


@pytest.mark.filterwarnings(f"ignore:{STAYS_INSTRUMENTED}")
def test_a_job_may_prune_quantize_and_train(tmp_path: Path) -> None:
    pytest.importorskip("tersely_pruning")
    recipe = {
        "pruning": {
            "algorithm": "level",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        },
        "quantization": {"algorithm": "qat", "config_list": [BOTH]},
    }
    parts = {
        "train": "quantized_parts:finetune",
        "data": {"calibration": "quantized_parts:batches"},
    }

    report = run(job(tmp_path, recipe, **parts))

    assert {row.sparsity for row in report.rows if row.target == "weight"} == {0.5, None}
    assert all(row.scales == 1 for row in report.rows_of("quantization"))
    assert report.warnings == ()


def test_a_job_without_the_batches_it_needs_says_where_they_belong(tmp_path: Path) -> None:
    file = job(tmp_path, {"quantization": {"algorithm": "ptq", "config_list": [BOTH]}})

    with pytest.raises(tersely.SessionError) as caught:
        run(file)

    assert str(caught.value) == (
        f"0._input_ {RANGE_OF_CALIBRATION}; {CALIBRATE_FIRST}; the job calls it when "
        "data.calibration gives the batches"
    )
