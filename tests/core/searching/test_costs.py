"""Costs as shares of the dense model's: of its file in the same format, of its time there."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import RunsExport
from tersely.document.job import Export
from tersely.searching.costs.consumer import Consumer
from tersely.searching.costs.costing import Costing

BATCH = torch.ones(2, 8)


class Halves(RunsExport):
    """Writes two bytes for each weight that is not masked, and runs without computing."""

    def __init__(self, *, needs_masks: bool = False) -> None:
        self.needs_masks = needs_masks

    def refusals(self, source: tersely.ExportSource) -> list[tersely.Refusal]:
        is_dense = all(bool((one != 0).all()) for one in source.floats.values())
        return [tersely.Refusal("nothing is masked", "0.weight")] * (self.needs_masks and is_dense)

    def write(self, source: tersely.ExportSource, path: Path) -> list[Path]:
        path.write_bytes(b"12" * sum(int((one != 0).sum()) for one in source.floats.values()))
        return [path]

    def check(self, source: tersely.ExportSource, path: Path) -> dict[str, int]:
        return {}

    def load(self, path: Path, *, threads: int | None = None) -> Any:
        size = path.stat().st_size
        return lambda *inputs: size


@pytest.fixture
def exports(provide: Any) -> Any:
    options = {"type": "object", "properties": {"needs_masks": {"type": "boolean"}}}
    info = tersely.ExporterInfo(
        name="toy_halves", implementation="toy_halves:Halves", suffix=".bin", options=options
    )
    with provide("toy_halves", info, Halves=Halves):
        yield


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 8, bias=False)).eval()


def _cost(model: nn.Module, folder: Path, *, ratio: float, **given: Any) -> float:
    options = given.pop("options", {})
    export = Export(format="toy_halves", options=options)
    consumer = Consumer(export=export, dense=model, example_inputs=BATCH, folder=folder)
    entry = {"op_names": ["0"], "sparse_ratio": ratio}
    session = tersely.prune(copy.deepcopy(model), [entry], algorithm="toy")
    costing = Costing(dense=model, example_inputs=BATCH, consumer=consumer, **given)
    return costing.share_of(session)


def test_what_a_format_packs_tighter_by_itself_counts_for_no_layer(
    toy_pruners: None, exports: None, model: nn.Module, tmp_path: Path
) -> None:
    assert _cost(model, tmp_path, ratio=0.0, objective="bytes") == 1
    # Half of one of two layers.
    assert _cost(model, tmp_path, ratio=0.5, objective="bytes") == 0.75


def test_a_file_in_a_format_without_dense_models_is_a_share_of_the_dense_tensors(
    toy_pruners: None, exports: None, model: nn.Module, tmp_path: Path
) -> None:
    cost = _cost(model, tmp_path, ratio=0.5, objective="bytes", options={"needs_masks": True})

    # Two bytes for each of 48 weights; the dense model has 64 of four.
    assert cost == 96 / 256


def test_time_is_a_share_of_the_dense_model_in_the_same_runtime(
    toy_pruners: None, exports: None, model: nn.Module, tmp_path: Path
) -> None:
    def sized(candidates: Any, threads: int) -> Any:
        return lambda: candidates["found"]() / candidates["dense"]()

    assert _cost(model, tmp_path, ratio=0.5, objective="latency", stopwatch=sized) == 0.75


def test_time_is_the_median_of_the_parts_in_which_it_is_measured(model: nn.Module) -> None:
    readings = iter([0.5, 9.0, 0.25])
    costing = Costing(
        objective="latency",
        dense=model,
        example_inputs=BATCH,
        stopwatch=lambda candidates, threads: lambda: next(readings),
    )

    assert costing.ratio(lambda: None) == 0.5
