"""Jobs that are resumed before all is compressed work through their calibration batches again."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages.sessions import STAYS_INSTRUMENTED
from rich.console import Console

from tersely.jobs.runner import run_job

CODE = """
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


def build():
    torch.manual_seed(0)
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(2)))
    return nn.Sequential(blocks, nn.Linear(6, 3))


def calibration():
    return list(torch.randn(32, 6, generator=torch.Generator().manual_seed(1)).split(16))


def batches():
    generator = torch.Generator().manual_seed(2)
    for number in range(4):
        if (HERE / "stop").exists() and number == 2:
            if (HERE / "stop").read_text() == "now":
                raise KeyboardInterrupt
            (HERE / "stop").write_text("now")
        inputs = torch.randn(8, 6, generator=generator)
        yield inputs, inputs[:, :3].argmax(1)
"""
LINEAR = {"op_types": ["Linear"], "sparse_ratio": 0.5}
INT8 = {"op_types": ["Linear"], "target_names": ["_input_", "weight"], "quant_dtype": "int8"}
RECIPES = {
    "block by block along a schedule": {
        "pruning": {
            "algorithm": "wanda",
            "schedule": {"name": "linear", "every": 3, "times": 4},
            "config_list": [LINEAR],
        }
    },
    "ranges behind masks that training shows": {
        "pruning": {"algorithm": "taylor", "config_list": [LINEAR]},
        "quantization": {"algorithm": "qat", "config_list": [INT8]},
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., bytes]:
    """Run a job of three epochs and return its weights."""
    (tmp_path / "resumed_parts.py").write_text(CODE)

    def run(recipe: Any, **options: Any) -> bytes:
        job = {
            "model": "resumed_parts:build",
            "data": {"calibration": "resumed_parts:calibration", "train": "resumed_parts:batches"},
            "loop": {"epochs": 3, "lr": 0.01, "loss": "cross_entropy"},
            "recipe": recipe,
            "output": "out",
            "seed": 0,
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
        run_job(tmp_path / "job.yaml", console=Console(file=io.StringIO()), **options)
        return (tmp_path / "out" / "model.safetensors").read_bytes()

    return run


@pytest.mark.filterwarnings(f"ignore:{STAYS_INSTRUMENTED}")
@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_job_has_its_calibration_batches_again(
    run: Callable[..., bytes], tmp_path: Path, name: str
) -> None:
    whole = run(RECIPES[name])
    (tmp_path / "stop").write_text("in the second epoch")
    with pytest.raises(KeyboardInterrupt):
        run(RECIPES[name])
    (tmp_path / "stop").unlink()

    assert run(RECIPES[name], resume=True) == whole
