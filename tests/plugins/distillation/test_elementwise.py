"""Losses that compare element with element, by hand."""

import pytest
import torch

from tersely_distillation.hint import hint
from tersely_distillation.l1 import l1
from tersely_distillation.mse import mse
from tersely_distillation.smooth_l1 import smooth_l1

# Differences of 0, 2, 3 and -1.
STUDENT = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TEACHER = torch.tensor([[1.0, 0.0], [0.0, 5.0]])


def test_mse_is_the_mean_of_squared_differences():
    # (0 + 4 + 9 + 1) / 4
    assert mse(STUDENT, TEACHER).item() == 3.5


def test_mse_has_the_gradient_of_a_mean():
    student = torch.tensor([1.0, 2.0], requires_grad=True)

    mse(student, torch.tensor([0.0, 4.0])).backward()

    # 2 * difference / 2 elements
    assert student.grad.tolist() == [1.0, -2.0]


def test_hint_is_half_the_mean_of_squared_differences():
    # (0 + 4 + 9 + 1) / 4 / 2
    assert hint(STUDENT, TEACHER).item() == 1.75


def test_l1_is_the_mean_of_magnitudes():
    # (0 + 2 + 3 + 1) / 4
    assert l1(STUDENT, TEACHER).item() == 1.5


def test_l1_has_a_gradient_of_signs_and_none_where_both_agree():
    student = STUDENT.clone().requires_grad_()

    l1(student, TEACHER).backward()

    assert student.grad.tolist() == [[0.0, 0.25], [0.25, -0.25]]


def test_smooth_l1_is_linear_from_a_difference_of_one_on():
    # (0 + (2 - 1/2) + (3 - 1/2) + (1 - 1/2)) / 4
    assert smooth_l1(STUDENT, TEACHER).item() == 1.125


def test_smooth_l1_squares_below_its_beta():
    # (0 + 4 + 9 + 1) / (2 * 4) / 4
    assert smooth_l1(STUDENT, TEACHER, beta=4.0).item() == 0.4375


@pytest.mark.parametrize("loss", [mse, hint, l1, smooth_l1])
def test_a_single_number_is_compared_too(loss):
    # Whatever they do with a difference of 1: 1, 1/2, 1, 1/2
    expected = {mse: 1.0, hint: 0.5, l1: 1.0, smooth_l1: 0.5}
    assert loss(torch.tensor(3.0), torch.tensor(2.0)).item() == expected[loss]
