"""Losses that compare directions of features and maps of activity, by hand."""

import pytest
import torch

from tersely_distillation.attention_transfer import attention_transfer
from tersely_distillation.cosine import cosine


def test_cosine_is_one_minus_the_mean_cosine():
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    teacher = torch.tensor([[4.0, 3.0], [0.0, 2.0]])

    # ((1 - 24 / 25) + (1 - 0)) / 2
    assert cosine(student, teacher).item() == pytest.approx(0.52)


def test_cosine_does_not_see_lengths():
    student = torch.tensor([[3.0, 4.0]])

    assert cosine(100 * student, student).item() == pytest.approx(0.0, abs=1e-6)
    assert cosine(-student, student).item() == pytest.approx(2.0)


def test_cosine_of_hidden_states_is_along_the_last_dimension():
    student = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    teacher = torch.tensor([[[4.0, 3.0], [0.0, 2.0]]])

    assert cosine(student, teacher).item() == pytest.approx(0.52)


def test_cosine_of_maps_is_along_the_channels():
    # Position 0 has (3, 4) and (4, 3), position 1 has (1, 0) and (0, 2).
    student = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]]]])
    teacher = torch.tensor([[[[4.0, 0.0]], [[3.0, 2.0]]]])

    assert cosine(student, teacher).item() == pytest.approx(0.52)


def test_cosine_of_zeros_counts_as_zero_and_gives_no_gradient():
    student = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)

    loss = cosine(student, torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    loss.backward()

    # ((1 - 0) + (1 - 1)) / 2
    assert loss.item() == pytest.approx(0.5)
    assert student.grad[0].tolist() == [0.0, 0.0]


# Squares sum to (3, 4) over the student's channels and to (4, 3) over the teacher's.
STUDENT = torch.tensor([[[[1.0, -2.0]], [[1.0, 0.0]], [[-1.0, 0.0]]]])
TEACHER = torch.tensor([[[[2.0, 1.0]], [[0.0, -1.0]], [[0.0, 1.0]]]])


def test_attention_transfer_compares_maps_of_length_one():
    # (3/5 - 4/5)^2 and (4/5 - 3/5)^2, their mean
    assert attention_transfer(STUDENT, TEACHER).item() == pytest.approx(0.04)


def test_attention_transfer_takes_any_number_of_channels():
    teacher = torch.tensor([[[[0.0, 7.0]]]])

    # Against (0, 1): ((3/5)^2 + (1/5)^2) / 2
    assert attention_transfer(STUDENT, teacher).item() == pytest.approx(0.2)


def test_attention_transfer_of_hidden_states_is_over_tokens():
    student, teacher = STUDENT.squeeze(2).mT, TEACHER.squeeze(2).mT

    assert student.shape == (1, 2, 3)
    assert attention_transfer(student, teacher).item() == pytest.approx(0.04)


def test_attention_transfer_raises_magnitudes_to_its_power():
    # Magnitudes sum to (3, 4) and (4, 3).
    student = torch.tensor([[[[1.0, -2.0]], [[1.0, 1.0]], [[-1.0, 1.0]]]])
    teacher = torch.tensor([[[[-4.0, 3.0]]]])

    assert attention_transfer(student, teacher, power=1.0).item() == pytest.approx(0.04)


def test_attention_transfer_of_two_dimensions_is_of_one_channel():
    student, teacher = torch.tensor([[3.0, -4.0]]), torch.tensor([[4.0, 3.0]])

    assert attention_transfer(student, teacher, power=1.0).item() == pytest.approx(0.04)


def test_attention_transfer_is_the_mean_over_samples():
    student = torch.cat([STUDENT, STUDENT])
    teacher = torch.cat([TEACHER, STUDENT])

    assert attention_transfer(student, teacher).item() == pytest.approx(0.02)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_attention_transfer_does_not_see_scale(scale):
    loss = attention_transfer(scale * STUDENT, TEACHER, power=4.0)

    torch.testing.assert_close(loss, attention_transfer(STUDENT, TEACHER, power=4.0))


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 3, 4, 4), (2, 3, 2, 2)), ((2, 3, 4), (2, 3, 2, 2)), ((2,), (2,))]
)
def test_attention_transfer_needs_the_same_positions(student, teacher):
    with pytest.raises(ValueError, match="attention_transfer compares") as caught:
        attention_transfer(torch.zeros(student), torch.zeros(teacher))

    assert str(caught.value) == (
        "attention_transfer compares maps of one batch and the same positions, (batch, positions, features) or "
        f"(batch, channels, positions...): the student's is {student}, the teacher's is {teacher}"
    )
