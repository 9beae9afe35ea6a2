"""Benchmarks: candidates take turns, and ratios compare times of one round."""

import time
from collections.abc import Callable
from functools import partial
from itertools import groupby

import pytest
import torch
from messages.documents import number_above
from messages.files import MAPPING_OF_NAMES
from torch import nn

import tersely
from tersely.errors import BenchmarkError
from tersely.reporting.measuring.benchmark import in_parts
from tersely.reporting.measuring.timings import Benchmark, Timing, spell_bytes, spell_seconds


def recorder(calls: list[str], name: str, *, pause: float = 0.0) -> Callable[[object], None]:
    def call(value: object) -> None:
        calls.append(name)
        time.sleep(pause)

    return call


def test_candidates_take_turns_and_each_round_begins_with_another() -> None:
    calls: list[str] = []
    both = {name: recorder(calls, name, pause=0.021) for name in "ab"}

    result = tersely.benchmark(both, torch.ones(1), seconds=0.01)

    # The first turns warm up; after them, neighbours of two rounds are one group.
    turns = "".join(name for name, _ in groupby(calls))
    assert turns == "ab" + "abbaabbaab".replace("bb", "b").replace("aa", "a")
    assert calls.count("a") == calls.count("b")
    assert result.rounds == 5
    assert [timing.calls for timing in result] == [5, 5]


def test_ratios_compare_with_the_first_candidate() -> None:
    calls: list[str] = []
    both = {
        "slow": recorder(calls, "slow", pause=0.06),
        "fast": recorder(calls, "fast", pause=0.015),
    }

    result = tersely.benchmark(both, 0, seconds=0.1)

    assert result["slow"].ratio == 1
    assert 0.1 < result["fast"].ratio < 0.6
    assert result["fast"].low <= result["fast"].median <= result["fast"].high


def test_more_rounds_fill_the_given_time() -> None:
    calls: list[str] = []

    result = tersely.benchmark({"one": recorder(calls, "one", pause=0.01)}, 0, seconds=1)

    assert result.rounds > 5


def test_a_measurement_in_parts_makes_as_many_rounds_as_one_in_a_piece() -> None:
    calls: list[str] = []
    both = {name: partial(recorder(calls, name, pause=0.021), 0) for name in "ab"}
    part = in_parts(both, threads=1, seconds=0.01, parts=3)
    warm = len(calls)

    ratios = [part() for _ in range(3)]

    # Five rounds at least, in three parts of two, with the timer's own calls before each turn.
    assert len(calls) - warm == 3 * 2 * 2 * (1 + 2)
    assert all(0.5 < ratio < 2 for ratio in ratios)


def test_a_candidate_that_fails_in_a_part_is_named() -> None:
    left = iter(range(8))
    part = in_parts(
        {"dense": lambda: None, "found": lambda: next(left)}, threads=1, seconds=0.01, parts=3
    )
    for _ in left:
        pass

    with pytest.raises(BenchmarkError, match="'found' failed: StopIteration"):
        part()


@pytest.mark.parametrize(
    ("inputs", "given"),
    [
        (torch.ones(2), {"first": 2.0, "second": None}),
        ((torch.ones(2), 5), {"first": 2.0, "second": 5}),
        ({"second": 7, "first": torch.ones(2)}, {"first": 2.0, "second": 7}),
    ],
)
def test_inputs_are_given_as_a_model_takes_a_batch(inputs: object, given: object) -> None:
    seen: list[object] = []

    def call(first: torch.Tensor, second: object = None) -> None:
        seen.append({"first": float(first.sum()), "second": second})

    tersely.benchmark({"it": call}, inputs, seconds=0.001)

    assert seen[0] == given


def test_modules_are_measured_in_evaluation_mode_without_gradients_and_left_as_they_were() -> None:
    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Dropout().eval()
            self.inner = nn.Dropout()
            self.seen: set[tuple[bool, bool, bool]] = set()

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            self.seen.add((self.training, self.inner.training, torch.is_grad_enabled()))
            return value

    spy = Spy()

    tersely.benchmark({"spy": spy}, torch.ones(1), seconds=0.001)

    assert spy.seen == {(False, False, False)}
    assert (spy.training, spy.inner.training, spy.frozen.training) == (True, True, False)


def test_a_candidate_that_fails_is_named_and_modules_are_left_as_they_were() -> None:
    model = nn.Linear(2, 2)

    with pytest.raises(BenchmarkError, match=r"^'linear' failed: RuntimeError: mat1 and mat2"):
        tersely.benchmark({"linear": model}, torch.ones(1, 3))

    assert model.training


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ({}, {}, f"benchmark() has no candidates; give {MAPPING_OF_NAMES} functions"),
        ({"a": 3}, {}, "'a' is a int, expected a function"),
        ({"a": abs}, {"threads": 0}, "threads is 0, expected 1 or more"),
        ({"a": abs}, {"seconds": 0}, f"seconds is 0, {number_above(0)}"),
        ({"a": abs}, {"seconds": float("nan")}, f"seconds is nan, {number_above(0)}"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    candidates: dict[str, Callable[..., object]], options: dict[str, float], message: str
) -> None:
    with pytest.raises(BenchmarkError) as raised:
        tersely.benchmark(candidates, -1, **options)  # type: ignore[arg-type]  # wrong on purpose

    assert str(raised.value) == message


def test_threads_are_set_while_measuring_and_stated() -> None:
    seen: set[int] = set()
    before = torch.get_num_threads()

    result = tersely.benchmark(
        {"one": lambda _: seen.add(torch.get_num_threads())}, 0, threads=2, seconds=0.001
    )

    assert seen == {2}
    assert result.threads == 2
    assert torch.get_num_threads() == before


def test_the_peak_of_memory_is_that_of_the_first_call() -> None:
    size = 64 * 2**20

    def hungry(_: object) -> None:
        torch.ones(size // 4)

    result = tersely.benchmark({"modest": abs, "hungry": hungry}, -1, seconds=0.001)

    peak = result["hungry"].peak_memory
    assert peak is not None
    # An allocator may hold a second block of that size while it gives the first one back.
    assert 0.9 * size < peak < 2.5 * size
    assert (result["modest"].peak_memory or 0) < 0.5 * size


def test_measurements_survive_json_and_print() -> None:
    timing = Timing(
        name="dense", median=0.0123, low=0.01, high=0.5, ratio=1, calls=9, peak_memory=1_500_000
    )
    other = Timing(name="int8", median=2e-5, low=1e-6, high=1, ratio=0.25, calls=8)
    result = Benchmark(timings=(timing, other), threads=2, rounds=5, title="batch of 16")

    assert Benchmark.from_dict(result.to_dict()) == result
    assert len(result) == 2
    assert str(result).splitlines()[1].split("┃")[1:3] == [" batch of 16, 2 threads ", "  median "]
    assert "│ dense                  │ 12.3 ms │ 10.0 ms to 500 ms │ 1.000 │     1.50 MB │" in str(
        result
    )
    assert "│ int8                   │ 20.0 µs │ 1.00 µs to 1.00 s │ 0.250 │     unknown │" in str(
        result
    )


def test_an_unknown_candidate_is_answered_with_the_nearest() -> None:
    result = tersely.benchmark({"dense": abs}, -1, seconds=0.001)

    with pytest.raises(KeyError, match="no candidate is called 'dens'; did you mean 'dense'"):
        result["dens"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 µs"), (3e-8, "0.0300 µs"), (75, "75.0 s")])
def test_durations_are_spelled_with_three_digits(seconds: float, text: str) -> None:
    assert spell_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (45_600_000, "45.6 MB")],
)
def test_bytes_are_spelled_in_decimal_units(count: int, text: str) -> None:
    assert spell_bytes(count) == text
