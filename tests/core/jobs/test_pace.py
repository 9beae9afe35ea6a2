"""The rest of the time: estimated from the last minute, and told to log files now and then."""

import pytest

from tersely.jobs.progress.pace import Pace, spell_rest


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rest_is_estimated_from_the_speed_so_far() -> None:
    clock = Clock()
    pace = Pace(clock)

    clock.now = 4.0
    pace.note(2)

    assert pace.remaining(10) == 16
    assert pace.sentence("measured", done=2, total=10) == "2 of 10 measured, about 16 s left"


def test_only_the_last_minute_counts() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.note(1000)  # known from a file, in no time

    for second in range(10, 201, 10):
        clock.now = float(second)
        pace.note(1000 + second // 10)

    assert pace.remaining(1030) == pytest.approx(100)


def test_a_line_is_due_every_ten_seconds() -> None:
    clock = Clock()
    pace = Pace(clock)

    told = []
    for tenth in range(0, 301):
        clock.now = tenth / 10
        told.append(pace.is_due())

    assert sum(told) == 3


def test_without_an_end_nothing_is_estimated() -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now = 1.0
    pace.note(5)

    assert pace.sentence("batches observed", done=5, total=None) == "5 batches observed"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (41.6, "42 s"), (95, "2 min"), (3600, "1 h"), (5400, "1 h 30 min")],
)
def test_a_rest_is_no_more_exact_than_it_is_known(seconds: float, said: str) -> None:
    assert spell_rest(seconds) == said
