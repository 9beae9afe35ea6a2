"""Measure candidates in turns, so that other load on the machine affects all of them equally."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils import benchmark as torch_benchmark

from tersely.contracts.calling import call_model
from tersely.errors import BenchmarkError
from tersely.reporting.measuring.memory import peak_memory
from tersely.reporting.measuring.timings import Benchmark, Timing

_TURN = 0.02  # seconds that a turn lasts at least, so that the clock's resolution does not count
_LEAST_ROUNDS = 5
_WARM_UPS = 2  # calls that PyTorch's timer makes before each turn, which are not timed


def benchmark(
    candidates: Mapping[str, Callable[..., object]],
    inputs: Any,
    *,
    threads: int | None = None,
    seconds: float = 5.0,
    title: str = "",
) -> Benchmark:
    """Measure how long candidates take for the same inputs, each in turn, round after round.

    Every round times all candidates, each round beginning with another one, and a ratio compares
    times of one round. Modules are called in evaluation mode, everything without gradients. Before
    the rounds each candidate is called until lazy work such as compilation is done.

    Args:
        candidates: name -> what to call: a module, a function, a session of another runtime behind
            a function. The first is what the others are compared with.
        inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
        threads: how many threads PyTorch computes with; None for as many as it does now. Other
            runtimes have settings of their own.
        seconds: about how long the rounds take together; five rounds are made in any case.
        title: what the table is headed with.

    Returns:
        Medians, quartiles and ratios of the times, and the peak of memory of the first call.

    Raises:
        BenchmarkError: nothing to measure, a number that makes no sense, or a candidate that
            fails; its name is in the message and its error is the cause.
    """
    threads = torch.get_num_threads() if threads is None else threads
    _check(candidates, threads=threads, seconds=seconds)
    with _evaluating(candidates), torch.no_grad():
        turns = [
            _warmed_up(name, partial(call_model, call, inputs), threads=threads)
            for name, call in candidates.items()
        ]
        rounds = _rounds(turns, _count(turns, seconds))
    first = rounds[0]
    timings = tuple(
        _timing(turn, times, compared_with=first) for turn, times in zip(turns, rounds, strict=True)
    )
    return Benchmark(timings=timings, threads=threads, rounds=len(first), title=title)


def in_parts(
    candidates: Mapping[str, Callable[[], object]], *, threads: int, seconds: float, parts: int
) -> Callable[[], float]:
    """Prepare a measurement that is made in parts, with other work between them.

    What disturbs the machine for a while then falls on one part and not on all.

    Args:
        candidates: two, as for `benchmark`, called without arguments.
        threads: how many threads PyTorch computes with.
        seconds: about how long all parts take together.
        parts: how many there are.

    Returns:
        A function that makes one part, and returns how long the second candidate takes over the
        first.

    Raises:
        BenchmarkError: a candidate fails; the function raises it as well.
    """
    with torch.no_grad():
        turns = [_warmed_up(name, call, threads=threads) for name, call in candidates.items()]
    count = math.ceil(_count(turns, seconds) / parts)

    def part() -> float:
        with torch.no_grad():
            first, second = _rounds(turns, count)
        return _ratio(second, first)

    return part


@attrs.frozen(eq=False)
class _Turn:
    name: str
    timer: torch_benchmark.Timer
    calls: int
    duration: float
    peak_memory: int | None

    def time(self) -> float:
        """Seconds of one call, as the mean of this turn's."""
        try:
            return float(self.timer.timeit(self.calls).mean)
        except Exception as error:  # the candidate is foreign code
            raise _failed(self.name, error) from error


def _check(candidates: Mapping[str, object], *, threads: int, seconds: float) -> None:
    if not candidates:
        raise BenchmarkError("benchmark() has no candidates; give a mapping of names to functions")
    for name, call in candidates.items():
        if not callable(call):
            raise BenchmarkError(f"{name!r} is a {type(call).__name__}, expected a function")
    if threads < 1:
        raise BenchmarkError(f"threads is {threads}, expected 1 or more")
    if not 0 < seconds < math.inf:
        raise BenchmarkError(f"seconds is {seconds}, expected a number above 0")


@contextlib.contextmanager
def _evaluating(candidates: Mapping[str, object]) -> Iterator[None]:
    training = [
        module
        for candidate in candidates.values()
        if isinstance(candidate, nn.Module)
        for module in candidate.modules()
        if module.training
    ]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _warmed_up(name: str, call: Callable[[], object], *, threads: int) -> _Turn:
    timer = torch_benchmark.Timer("call()", globals={"call": call}, num_threads=threads)
    try:
        with _computing_with(threads), peak_memory() as peak:
            call()
        duration = min(timer.timeit(1).mean for _ in range(2))
    except Exception as error:  # the candidate is foreign code
        raise _failed(name, error) from error
    calls = max(1, math.ceil(_TURN / max(duration, 1e-9)))
    return _Turn(name, timer, calls, duration * (calls + _WARM_UPS), peak.bytes)


def _count(turns: Sequence[_Turn], seconds: float) -> int:
    return max(_LEAST_ROUNDS, round(seconds / sum(turn.duration for turn in turns)))


def _rounds(turns: Sequence[_Turn], count: int) -> list[list[float]]:
    """Return the times of each candidate, one of every round."""
    times: list[list[float]] = [[] for _ in turns]
    for number in range(count):
        for index in range(len(turns)):
            place = (number + index) % len(turns)
            times[place].append(turns[place].time())
    return times


def _ratio(times: Sequence[float], compared_with: Sequence[float]) -> float:
    return statistics.median(own / other for own, other in zip(times, compared_with, strict=True))


def _timing(turn: _Turn, times: list[float], *, compared_with: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(
        name=turn.name,
        median=median,
        low=low,
        high=high,
        ratio=_ratio(times, compared_with),
        calls=turn.calls * len(times),
        peak_memory=turn.peak_memory,
    )


def _failed(name: str, error: Exception) -> BenchmarkError:
    return BenchmarkError(f"{name!r} failed: {type(error).__name__}: {error}")
