"""Ratios of two ways to do one thing, measured side by side; run with ``pytest -m benchmark``."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Ratio = Callable[..., float]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave benchmarks out unless they are asked for by their marker."""
    if "benchmark" in config.option.markexpr:
        return
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    config.hook.pytest_deselected(items=here)
    items[:] = [item for item in items if item not in here]


@pytest.fixture
def ratio(record_property: Callable[[str, object], None]) -> Ratio:
    """Median time of ours over median time of theirs, in interleaved repeats."""

    def measure(ours, theirs, *, repeats=9):
        times = {ours: [], theirs: []}
        for function in (ours, theirs):
            function()
        for _ in range(repeats):
            for function, spent in times.items():
                start = time.perf_counter()
                function()
                spent.append(time.perf_counter() - start)
        mine, other = (statistics.median(spent) for spent in times.values())
        found = mine / other
        record_property("ratio", found)
        print(f"{mine * 1e3:.1f} ms / {other * 1e3:.1f} ms = {found:.2f}")  # noqa: T201  # the result
        return found

    return measure
