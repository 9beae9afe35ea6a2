"""Latencies of layers alone: each measured once, and whole settings predicted from them."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tersely
from tersely.errors import ConfigError
from tersely.searching.costs.parts import Alone, parts_of
from tersely.searching.recorded_calls import calls_in
from tersely.searching.units import units_of

pytest.importorskip("optuna")

from tersely.searching.costs.costing import READINGS

PARTS = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def batches():
    return [torch.randn(8, 6, generator=torch.Generator().manual_seed(0))]
"""


class Counting:
    """A stopwatch on which a call takes as long as it has operations."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(
        self, candidates: Mapping[str, Callable[[], object]], threads: int
    ) -> Callable[[], float]:
        def reading() -> float:
            self.readings += 1
            return self.ratio(candidates)

        return reading

    def ratio(self, candidates: Mapping[str, Callable[[], object]]) -> float:
        return _operations(candidates["found"]) / _operations(candidates["dense"])


def _operations(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


@pytest.fixture
def watch() -> Counting:
    return Counting()


@pytest.fixture
def search(workshop: Any, watch: Counting, monkeypatch: pytest.MonkeyPatch) -> Any:
    import io

    from rich.console import Console

    from tersely.searching.search import job as searching

    monkeypatch.setattr(searching, "Costing", partial(searching.Costing, stopwatch=watch))
    workshop.code("tabled.py", PARTS)
    entry = {"op_names": ["0", "2", "4"], "sparse_ratio": 0.5}
    workshop.write(
        model="tabled:build",
        data={"calibration": "tabled:batches"},
        train=None,
        recipe={"pruning": {"algorithm": "toy_rows", "config_list": [entry]}},
    )

    def search(output: str = "found", **wanted: Any) -> Any:
        stream = io.StringIO()
        search.said = stream  # type: ignore[attr-defined]  # for tests of what is said
        given = {"max_drop": 60, "trials": 9, "ratios": (0.25, 0.5, 0.75), "costs": "table"}
        return searching.search_job(
            workshop.file,
            searching.Wanted(**{**given, "objective": "latency", **wanted}),
            output=workshop.folder / output,
            console=Console(file=stream, width=200),
        )

    search.folder = workshop.folder  # type: ignore[attr-defined]
    return search


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return {}


@pytest.fixture
def whole(kept: dict[str, Any], search: Any, watch: Counting) -> Any:
    """A search that several tests read, with its readings, what it said and its file."""
    if not kept:
        kept["found"] = search()
        kept["readings"], kept["said"] = watch.readings, search.said.getvalue()
        kept["file"] = json.loads((search.folder / "found" / "search.json").read_text())
        watch.readings = 0
    return SimpleNamespace(**kept)


def test_what_is_predicted_from_layers_is_what_the_whole_takes(whole: Any) -> None:
    found = whole.found

    assert found.measured
    for one in found.trials:
        if one.setting in found.measured:
            assert one.cost == pytest.approx(found.measured[one.setting])


def test_a_layer_is_measured_in_full_once_for_each_shape(whole: Any) -> None:
    found = whole.found

    assert whole.readings == READINGS * (len(found.latencies) + len(found.measured))
    layers = [one["part"] for one in found.latencies.values()]
    # As it is, as an input of fewer channels leaves it, as its own ratio does: 2, 4 or 6 of 8.
    assert "Linear(in_features=6, out_features=8, bias=True)" in layers
    # Two layers of this shape share an entry.
    assert layers.count("Linear(in_features=8, out_features=8, bias=True)") == 1
    assert [one["part"] for one in whole.file["latencies"]] == layers


def test_the_best_and_the_best_uniform_are_measured(whole: Any) -> None:
    found = whole.found

    cheapest = sorted(
        (one for one in found.trials if one.cost is not None), key=lambda one: one.cost
    )
    assert {one.setting for one in cheapest[:5]} <= set(found.measured)
    assert found.best_uniform.setting in found.measured
    assert found.best.setting in found.measured
    assert "predicted" in str(found)


def test_what_is_only_predicted_is_told_as_such(whole: Any) -> None:
    assert "  trial 1: predicted latency " in whole.said
    promising = len(whole.found.promising)
    assert f"[5/5] measure the best\n  {promising} settings measured\n" in whole.said


def test_what_was_measured_before_is_told_as_it_was_measured(
    search: Any, watch: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counting.ratio

    def doubled(self: Counting, candidates: Any) -> float:
        is_whole = isinstance(getattr(candidates["found"], "args", (0,))[0], nn.Sequential)
        return counted(self, candidates) * (2 if is_whole else 1)

    monkeypatch.setattr(Counting, "ratio", doubled)
    first = search(trials=6)
    search(trials=7)

    best = first.measured[first.best.setting]
    place = first.trials.index(first.best) + 1
    assert f"  trial {place}: latency {best:.4f}, loss" in search.said.getvalue()


def test_a_search_that_goes_on_measures_no_layer_again(search: Any, watch: Counting) -> None:
    first = search(trials=6)
    readings = watch.readings
    again = search(trials=6)

    assert watch.readings == readings
    assert again.trials == first.trials
    assert again.measured == first.measured


def test_what_the_stopwatch_says_decides_among_those_measured(
    whole: Any, search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counting.ratio

    def slower(self: Counting, candidates: Any) -> float:
        # Whole models take longer the more they save: an order that no layer foretells.
        ratio = counted(self, candidates)
        is_whole = isinstance(getattr(candidates["found"], "args", (0,))[0], nn.Sequential)
        return 2 - ratio if is_whole and ratio < 1 else ratio

    monkeypatch.setattr(Counting, "ratio", slower)
    found = search()

    assert [one.setting for one in found.trials] == [one.setting for one in whole.found.trials]
    assert found.measured[found.best.setting] == min(found.measured.values())
    assert found.best.cost > min(one.cost for one in found.trials if one.cost is not None)


def test_what_disturbs_one_moment_decides_no_entry(
    whole: Any, search: Any, watch: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = whole.found
    counted = Counting.ratio

    def disturbed(self: Counting, candidates: Any) -> float:
        # Something else keeps the machine busy for three readings.
        return counted(self, candidates) * (10 if 6 <= watch.readings < 9 else 1)

    monkeypatch.setattr(Counting, "ratio", disturbed)
    found = search("disturbed")

    readings = [one["readings"] for one in found.latencies.values()]
    assert any(max(one) > 5 * min(one) for one in readings)
    assert {one["part"]: one["share"] for one in found.latencies.values()} == {
        one["part"]: one["share"] for one in undisturbed.latencies.values()
    }
    assert [one.setting for one in found.trials] == [one.setting for one in undisturbed.trials]


def test_a_table_of_bytes_is_refused(search: Any) -> None:
    with pytest.raises(ConfigError, match="latencies of layers, and the objective is bytes"):
        search(objective="bytes")


def test_every_layer_with_weights_is_a_part(toy_pruners: None) -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    )
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    recipe = {"pruning": {"algorithm": "toy", "config_list": [entry]}}
    plan = tersely.plan(model, recipe)

    assert parts_of(model, plan, units_of(plan)) == (("0",), ("2.0",), ("2.1",))


def test_a_part_alone_computes_what_it_did_in_the_model() -> None:
    torch.manual_seed(0)
    inner = nn.Linear(4, 4)
    model = nn.Sequential(inner, nn.Sequential(nn.Linear(4, 3)), nn.ReLU())
    batch = torch.randn(2, 4)
    alone = Alone(model, calls_in(model, ["0", "1.0"], batch))

    first, second = alone(*alone.alone_inputs)

    assert [name for name, _ in alone.named_parameters()] == [
        "0.weight",
        "0.bias",
        "1.0.weight",
        "1.0.bias",
    ]
    assert torch.equal(first, inner(batch))
    assert torch.equal(second, model[:2](batch))
    assert alone.get_submodule("0") is not inner
