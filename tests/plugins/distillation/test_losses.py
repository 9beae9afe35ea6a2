"""Losses by hand: the numbers below were worked out on paper."""

import math

import pytest
import torch

from laconic_distillation.kl import kl
from laconic_distillation.mse import mse


def test_mse_is_the_mean_of_squared_differences():
    student = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, 5.0]])

    # (0 + 4 + 9 + 1) / 4
    assert mse(student, teacher).item() == 3.5


def test_mse_has_the_gradient_of_a_mean():
    student = torch.tensor([1.0, 2.0], requires_grad=True)

    mse(student, torch.tensor([0.0, 4.0])).backward()

    # 2 * difference / 2 elements
    assert student.grad.tolist() == [1.0, -2.0]


def test_mse_of_different_shapes_is_refused():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text follows
        mse(torch.zeros(2, 3), torch.zeros(1, 3))

    assert str(caught.value) == (
        "mse compares tensors of one shape: the student's is (2, 3), the teacher's is (1, 3)"
    )


# Softened by 2 the student is (1/2, 1/2) and the teacher (3/4, 1/4).
STUDENT = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
DIVERGENCE = 0.75 * math.log(1.5) - 0.25 * math.log(2)


def test_kl_is_the_divergence_of_the_halved_logits_times_four():
    assert kl(STUDENT, TEACHER).item() == pytest.approx(4 * DIVERGENCE, rel=1e-12)


def test_kl_divides_and_multiplies_by_its_temperature():
    loss = kl(STUDENT, TEACHER / 2, temperature=1.0)

    assert loss.item() == pytest.approx(DIVERGENCE, rel=1e-12)


def test_kl_divides_by_the_batch():
    loss = kl(STUDENT.repeat(3, 1), TEACHER.repeat(3, 1))

    assert loss.item() == pytest.approx(4 * DIVERGENCE, rel=1e-12)


def test_kl_sums_over_what_lies_between_batch_and_classes():
    loss = kl(STUDENT.expand(2, 5, 2), TEACHER.expand(2, 5, 2))

    assert loss.item() == pytest.approx(5 * 4 * DIVERGENCE, rel=1e-12)


def test_kl_of_equal_logits_is_zero():
    assert kl(TEACHER, TEACHER).item() == pytest.approx(0.0, abs=1e-15)


def test_kl_does_not_change_when_all_logits_of_a_sample_move_together():
    torch.testing.assert_close(kl(STUDENT + 100.0, TEACHER), kl(STUDENT, TEACHER))


def test_kl_gradient_is_the_softened_difference_times_the_temperature():
    student = STUDENT.clone().requires_grad_()

    kl(student, TEACHER).backward()

    # T^2 * (softmax(s/T) - softmax(t/T)) / T = 2 * (1/2 - 3/4, 1/2 - 1/4)
    torch.testing.assert_close(student.grad, torch.tensor([[-0.5, 0.5]], dtype=torch.float64))


def test_kl_of_different_shapes_is_refused():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text follows
        kl(torch.zeros(2, 10), torch.zeros(2, 100))

    assert str(caught.value) == (
        "kl compares logits of one shape (batch, ..., classes): the student's is (2, 10), the "
        "teacher's is (2, 100)"
    )


def test_kl_of_numbers_is_refused():
    with pytest.raises(ValueError, match="kl compares logits of one shape"):
        kl(torch.tensor(1.0), torch.tensor(1.0))


@pytest.mark.parametrize("loss", [mse, kl])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_loss_is_a_number_of_the_students_dtype(loss, dtype):
    value = loss(torch.ones(2, 3, dtype=dtype), torch.zeros(2, 3, dtype=dtype))

    assert value.shape == ()
    assert value.dtype == dtype
