"""A search whose latencies are looked up: layers pruned, quantized, folded and exported alone."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import tersely

pytest.importorskip("optuna")
pytest.importorskip("onnxruntime")

PARTS = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    )


def batches():
    return [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))]
"""
NORM = {"align": {"module_name": "0", "target_name": "weight", "dims": [0]}}
RECIPE: dict[str, Any] = {
    "pruning": {
        "algorithm": "l1_norm",
        "config_list": [
            {"op_names": ["0"], "sparse_ratio": 0.5},
            {"op_names": ["1"], "target_settings": {"weight": NORM, "bias": NORM}},
        ],
    },
    "quantization": {
        "algorithm": "ptq",
        "fuse_names": "auto",
        "config_list": [
            {"op_types": ["Conv2d", "Linear"], "target_names": ["_input_", "weight"]},
        ],
    },
}


def test_layers_are_timed_alone_in_the_runtime_of_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tersely.searching.search.job import Wanted, search_job

    monkeypatch.setattr("tersely.searching.costs.costing.SECONDS", 0.02)
    (tmp_path / "timed_parts.py").write_text(PARTS)
    document = {
        "model": "timed_parts:build",
        "data": {"calibration": "timed_parts:batches"},
        "recipe": RECIPE,
        "export": [{"format": "onnx"}],
        "output": "run",
    }
    (tmp_path / "job.json").write_text(json.dumps(document))
    wanted = Wanted(
        max_drop=90, objective="latency", costs="table", trials=3, ratios=(0.5,), bits=(8,)
    )

    found = search_job(tmp_path / "job.json", wanted, console=Console(file=io.StringIO()))

    layers = {str(one["part"]).replace(", stride=(1, 1)", "") for one in found.latencies.values()}
    norm = (
        "BatchNorm2d({}, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"
    )
    for width in (8, 4):
        folded = f"Conv2d(3, {width}, kernel_size=(3, 3)) and {norm.format(width)} and ReLU()"
        linear = f"Linear(in_features={36 * width}, out_features=4, bias=True)"
        assert {folded, f"{folded} and 8 bits", linear, f"{linear} and 8 bits"} <= layers
    assert len(layers) == 8
    assert set(found.measured) == {one.setting for one in found.trials}
    assert all(cost > 0 for cost in found.measured.values())


def test_what_is_folded_is_called_with_what_was_before_it() -> None:
    from tersely.searching.costs.parts import Alone, parts_of, with_folds
    from tersely.searching.recorded_calls import calls_in
    from tersely.searching.units import units_of

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    image = torch.randn(2, 3, 8, 8)
    entry = {"op_types": ["Conv2d"], "target_names": ["_input_", "weight"]}
    stage = {"algorithm": "ptq", "fuse_names": "auto", "config_list": [entry]}
    recipe = {"quantization": stage}
    plan = tersely.plan(model, recipe, example_inputs=image)
    (part,) = parts_of(model, plan, units_of(plan))

    alone = Alone(model, with_folds(calls_in(model, part, image), plan)).eval()

    assert part == ("0", "1", "2")
    (found,) = alone(image)
    assert torch.equal(found, model(image))
