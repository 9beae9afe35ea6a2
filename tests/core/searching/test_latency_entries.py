"""Which layers share an entry of the latency table."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tersely.searching.recorded_calls import calls_in

pytest.importorskip("optuna")


class Repeated(nn.Module):
    """Multiplies again and again; its ``repr`` does not say how often."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = x @ self.weight
        return x


def test_layers_that_differ_in_what_repr_leaves_out_share_no_entry() -> None:
    from tersely.searching.costs.latency_table import _described

    model = nn.Sequential(Repeated(1), Repeated(100), Repeated(1)).eval()
    calls = calls_in(model, ["0", "1", "2"], torch.ones(2, 4))

    once, often, again = (_described(model, (call.module,), [call], ()) for call in calls)

    assert once == again
    assert once != often


class Switch:
    """What is passed to a layer beside tensors, and looks different in every process."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


class Switched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor, switch: Switch) -> Tensor:
        return x * self.weight * switch.factor


class Switches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Switched(), Switched()

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.one(x, Switch(1.0)), Switch(2.0))


def test_an_object_that_a_layer_is_called_with_is_known_by_its_class_and_the_layer() -> None:
    from tersely.searching.costs.latency_table import _described

    model = Switches().eval()
    kept = []  # so that no two objects have one address
    found = []
    for _ in range(2):
        calls = calls_in(model, ["one", "other"], torch.ones(2, 4))
        kept.append(calls)
        found.append([_described(model, (call.module,), [call], ()) for call in calls])

    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


class Rows(dict[str, Any]):
    """A store that keeps rows in memory."""

    def row(self, key: str) -> Any:
        return self.get(key)

    def add_row(self, key: str, row: Any) -> None:
        self[key] = row


def test_the_readings_of_a_layer_lie_apart_and_their_median_counts() -> None:
    from tersely.searching.costs.latency_entries import Entries

    order: list[str] = []
    said = {"a": iter([1.0, 9.0, 2.0]), "b": iter([5.0, 4.0, 3.0])}

    def reading(name: Any) -> Callable[[], float]:
        def read() -> float:
            order.append(name)
            return next(said[name])

        return read

    def made(name: str) -> Callable[[Path], Any]:
        return lambda folder: name if folder.is_dir() else "no folder"

    rows = Rows()
    costing: Any = SimpleNamespace(reading=reading)
    entries = Entries(costing=costing, store=rows)  # type: ignore[arg-type]  # as much as it uses
    with entries.measuring():
        first, second, again = (entries.need({"part": one}, made(one)) for one in ("a", "b", "a"))
        entries.measure_again()

    assert order == ["a", "b", "a", "b", "a", "b"]
    assert first == again
    assert [entries.share(first), entries.share(second)] == [2.0, 4.0]
    assert rows[first] == {"part": "a", "share": 2.0, "readings": [1.0, 9.0, 2.0]}


def test_an_entry_whose_measuring_was_cut_counts_with_the_readings_it_has() -> None:
    from tersely.searching.costs.latency_entries import Entries

    rows = Rows()
    costing: Any = SimpleNamespace(reading=lambda name: lambda: 0.5)
    cut = Entries(costing=costing, store=rows)  # type: ignore[arg-type]  # as much as it uses
    with cut.measuring():
        key = cut.need({"part": "a"}, lambda folder: lambda: None)

    resumed = Entries(costing=costing, store=rows)  # type: ignore[arg-type]  # as above
    with resumed.measuring():
        assert resumed.need({"part": "a"}, lambda folder: pytest.fail("known")) == key
    assert resumed.share(key) == 0.5
