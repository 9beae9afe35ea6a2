"""Ratios and bit widths chosen together, and layers that have neither."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import tersely

PARTS = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def batches():
    return [torch.randn(16, 8, generator=torch.Generator().manual_seed(1))]
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "together_parts.py").write_text(PARTS)
    document: dict[str, Any] = {
        "model": "together_parts:build",
        "data": {"calibration": "together_parts:batches"},
        "recipe": {
            "pruning": {
                "algorithm": "l1_norm",
                "config_list": [{"op_names": ["0", "2"], "sparse_ratio": 0.5}],
            },
            "quantization": {
                "algorithm": "ptq",
                "config_list": [
                    {
                        "op_types": ["Linear"],
                        "target_names": ["_input_", "weight"],
                        "quant_dtype": "int8",
                    }
                ],
            },
        },
        "output": "run",
    }
    (tmp_path / "job.json").write_text(json.dumps(document))
    return tmp_path / "job.json"


def test_ratios_and_bit_widths_are_chosen_together(job: Path) -> None:
    pytest.importorskip("optuna")
    from tersely.searching.search.job import Wanted, search_job

    wanted = Wanted(max_drop=30, objective="bytes", trials=16, ratios=(0.25, 0.5), bits=(8, 4))
    found = search_job(job, wanted, console=Console(file=io.StringIO()))

    assert list(found.units) == [
        "pruning of 0",
        "pruning of 2",
        "quantization of 0",
        "quantization of 2",
        "quantization of 4",
    ]
    assert found.best is not None
    assert found.best.drop <= 30
    # Integers of 8 bits alone leave more than a quarter.
    assert found.best.cost < 0.25
    uniform = {one.setting for one in found.trials if one.kind == "uniform"}
    assert {(0, 0, 1, 1, 1), (1, 1, 0, 0, 0)} <= uniform
    model = nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    tersely.plan(model, found.recipe)


def test_a_setting_that_cannot_be_built_is_not_good_enough(job: Path) -> None:
    pytest.importorskip("optuna")
    from tersely.searching.search.job import Wanted, search_job

    # Without a quarter of 16 rows the next layer has 12 columns, which make no groups of 8.
    rows = {"op_names": ["0"], "sparse_ratio": 0.5}
    groups = {"op_names": ["2"], "sparse_ratio": 0.5, "granularity": [1, 8]}
    document = json.loads(job.read_text())
    document["recipe"] = {"pruning": {"algorithm": "l1_norm", "config_list": [rows, groups]}}
    job.write_text(json.dumps(document))

    wanted = Wanted(max_drop=1000, trials=8, ratios=(0.25, 0.5))
    found = search_job(job, wanted, console=Console(file=io.StringIO()))

    refused = [one for one in found.trials if one.problem]
    assert refused
    assert all(one.cost is None for one in refused)
    assert f"{len(refused)} could not be built, such as: " in str(found)
    assert found.best is not None


def test_what_has_neither_is_measured_as_it_is_written() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    recipe = {
        "pruning": {
            "algorithm": "level",
            "config_list": [
                {"op_names": ["0"], "target_names": ["weight"], "granularity": "2:4"},
                {"op_names": ["2"], "target_names": ["weight"], "sparse_ratio": 0.5},
            ],
        }
    }

    found = tersely.sensitivity(model, recipe, data=[torch.randn(4, 8)], ratios=[0.5])

    assert [(one.layer, one.key) for one in found] == [("0", "as_written"), ("2", "sparse_ratio")]
    assert found.measured[0].value > 0
    assert "as written" in str(found)
