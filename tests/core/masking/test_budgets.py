from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersely.masking.budgets import bound_count, count_masked


@pytest.mark.parametrize(
    ("ratio", "total", "count"),
    [
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996 in floating point
        (0.57, 100, 57),
        (0.7, 10, 7),
        (0.1, 3, 0),
        (0.5, 7, 3),
        (0.999999, 1_000_000, 999_999),
        (1.0, 10, 10),
        (1, 10, 10),
        (0, 10, 0),
        (0.5, 0, 0),
        (1e-9, 10**9, 1),
    ],
)
def test_a_ratio_masks_the_floor_of_its_decimal_product(ratio, total, count):
    assert count_masked(ratio, total) == count


def test_a_fraction_counts_exactly_where_its_float_would_not():
    third = Fraction(3, 5) * Fraction(1, 3)
    assert count_masked(third, 10) == 2
    assert count_masked(0.6 * (1 / 3), 10) == 1


@given(st.integers(0, 1000), st.integers(0, 10_000))
def test_a_ratio_of_k_thousandths_masks_k_n_over_a_thousand(k, n):
    assert count_masked(k / 1000, n) == k * n // 1000


def test_a_count_below_the_minimum_becomes_the_minimum():
    assert bound_count(1, 10, minimum=0.29, maximum=1.0) == 2


def test_a_count_above_the_maximum_becomes_the_maximum():
    assert bound_count(9, 10, minimum=0, maximum=0.55) == 5


def test_a_count_inside_the_bounds_stays():
    assert bound_count(4, 10, minimum=0.2, maximum=0.5) == 4
