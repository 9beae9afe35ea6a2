"""Outputs of a runtime beside those of the session."""

import pytest
import torch

import tersely
from tersely_export.agreement import compare

INF, NAN = float("inf"), float("nan")


def test_infinite_values_in_the_same_places_leave_the_finite_ones_to_compare() -> None:
    both = torch.tensor([3.0, 4.0, -INF, NAN]), torch.tensor([3.0, 4.5, -INF, NAN])

    found = compare([both[0]], [both[1]], least_cosine=0.98)

    # (9 + 18) / (5 x sqrt(29.25))
    assert found["cosine"] == pytest.approx(0.99846, abs=1e-5)
    assert found["largest_difference"] == 0.5


def test_outputs_that_are_infinite_in_the_same_places_alone_agree() -> None:
    values = torch.tensor([INF, -INF])

    assert compare([values], [values.clone()], least_cosine=0.98)["cosine"] == 1.0


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        ([1.0, -5.0, INF], [1.0, 5.0, INF], r"their cosine is -0\.9231"),
        ([1.0, 5.0], [1.0, -INF], r"50\.00% of the values are infinite or NaN in"),
        ([1.0, INF], [1.0, -INF], r"50\.00% of the values"),
        ([NAN, 5.0], [1.0, 5.0], "computed values that are not finite"),
    ],
    ids=["other values", "a finite value", "another sign", "NaN"],
)
def test_other_values_beside_infinite_ones_are_an_error(
    found: list[float], expected: list[float], message: str
) -> None:
    with pytest.raises(tersely.ExportError, match=message):
        compare([torch.tensor(found)], [torch.tensor(expected)], least_cosine=0.98)
