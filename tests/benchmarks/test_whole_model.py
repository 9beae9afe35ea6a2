"""Global magnitude pruning from the public interface: select, make masks, put them in force.

Each run is a process of its own on one thread, timed by the processor. Extra memory is the most
that was resident while it ran, less what was before and less the masks that stay, in the weights'
dtype: they are the result.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark

PROGRAM = Path(__file__).with_name("whole_model.py")
WIDTH = 2048
HUNDRED_MILLION, FIVE_HUNDRED_MILLION = 24, 120
GIGABYTE = 1 << 30


def prune(way, layers):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), way, str(layers), str(WIDTH)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    share = found["extra"] / found["weights"]
    print(  # noqa: T201  # the result
        f"{way}, {found['elements'] / 1e6:.0f} M: {found['seconds']:.2f} s, extra {share:.1%}"
    )
    assert found["kept"] == found["elements"] - found["elements"] // 2
    return found


def need_memory(gigabytes):
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    available = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", text)[1])
    if available < gigabytes * GIGABYTE:
        pytest.skip(f"needs {gigabytes} GB of memory, {available / GIGABYTE:.1f} are available")


def fastest(way, layers, *, repeats):
    return min(prune(way, layers)["seconds"] for _ in range(repeats))


def test_a_hundred_million_weights_cost_a_fraction_of_a_kth_value(record_property):
    need_memory(3)
    times = {"tersely": [], "kthvalue": []}
    for _ in range(3):
        for way, spent in times.items():
            spent.append(prune(way, HUNDRED_MILLION)["seconds"])
    found = min(times["tersely"]) / min(times["kthvalue"])
    record_property("ratio", found)
    print(f"{found:.3f} of cat and kthvalue")  # noqa: T201  # the result
    assert found <= 0.3


def test_a_hundred_million_weights_cost_next_to_nothing_of_global_unstructured(record_property):
    need_memory(7)
    theirs = prune("torch", HUNDRED_MILLION)["seconds"]
    found = fastest("tersely", HUNDRED_MILLION, repeats=3) / theirs
    record_property("ratio", found)
    print(f"{found:.4f} of global_unstructured")  # noqa: T201  # the result
    assert found <= 0.03


@pytest.mark.parametrize("layers", [HUNDRED_MILLION, FIVE_HUNDRED_MILLION])
def test_nothing_of_the_size_of_the_weights_is_needed_beside_the_masks(layers, record_property):
    need_memory(6)
    found = prune("tersely", layers)
    share = found["extra"] / found["weights"]
    record_property("extra", share)
    assert share < 0.1


def test_five_times_the_weights_cost_at_most_six_times_as_much(record_property):
    need_memory(6)
    larger = fastest("tersely", FIVE_HUNDRED_MILLION, repeats=2)
    found = larger / fastest("tersely", HUNDRED_MILLION, repeats=3)
    record_property("ratio", found)
    print(f"{found:.2f} for five times the weights")  # noqa: T201  # the result
    assert found <= 6
