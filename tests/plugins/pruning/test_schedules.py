from fractions import Fraction

import pytest

import tersely


@pytest.fixture(params=["linear", "agp"])
def schedule(request):
    return tersely.registry().schedules[request.param]


def test_linear_is_the_progress_itself():
    linear = tersely.registry().schedules["linear"]
    assert [linear(progress) for progress in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]


def test_agp_is_one_minus_the_cube_of_what_is_left():
    agp = tersely.registry().schedules["agp"]
    assert [agp(progress) for progress in (0.0, 0.5, 1.0)] == [0.0, 0.875, 1.0]


def test_a_schedule_ends_at_exactly_one(schedule):
    assert schedule(1.0) == 1.0


def test_a_schedule_never_falls(schedule):
    factors = [schedule(step / 100) for step in range(101)]
    assert factors == sorted(factors)


def test_a_fraction_stays_exact(schedule):
    assert isinstance(schedule(Fraction(1, 3)), Fraction)


def test_agp_of_a_third_is_19_of_27():
    assert tersely.registry().schedules["agp"](Fraction(1, 3)) == Fraction(19, 27)


GOALS = {"sparse_ratio": "sparse_ratio", "min": "min_sparse_ratio", "max": "max_sparse_ratio"}


def is_gradual(case):
    return case["algo"] in ("AGPPruner", "LinearPruner")


@pytest.mark.golden("schedule.json", select=is_gradual)
def test_goals_agree_with_the_reference_after_every_step(case):
    name = {"AGPPruner": "agp", "LinearPruner": "linear"}[case["algo"]]
    function = tersely.registry().schedules[name]
    for row in case["table"]:
        update = min(row["step"] // case["interval_steps"], case["total_times"])
        factor = function(update / case["total_times"])
        for column, goal in GOALS.items() | {("sparse_threshold", "sparse_threshold")}:
            if row[column] is not None:
                assert row[column] == pytest.approx(case["goal"][goal] * factor)
