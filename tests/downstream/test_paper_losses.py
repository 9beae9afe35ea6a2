"""Losses of papers: numbers by hand."""

import math

import pytest
import torch

import tersely

pytestmark = pytest.mark.usefixtures("papers")


def made(name, student, teacher, **options):
    loss = tersely.registry().losses[name](**options)
    loss.build(student, teacher)
    return loss


def identity(linear):
    with torch.no_grad():
        linear.weight.copy_(torch.eye(len(linear.weight)).view_as(linear.weight))


def test_patience_compares_directions_of_the_first_token():
    patient = tersely.registry().losses["patient"]
    student = torch.tensor([[[3.0, 0.0], [9.0, 9.0]]])
    teacher = torch.tensor([[[0.0, 5.0], [1.0, 1.0]]])

    assert patient(student, teacher).item() == pytest.approx(2.0)


def test_a_variance_costs_its_logarithm_and_divides_the_distance():
    loss = made("variational", (1, 2), (1, 2), variance=2.0)
    identity(loss.mean)

    found = loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]]))

    # (4 / 2 + 0) / 2 channels / 2, and half the logarithm of 2.
    assert found.item() == pytest.approx((4 / 2 / 2 + math.log(2)) / 2, rel=1e-4)


def test_what_is_negative_in_both_does_not_count():
    loss = made("overhaul", (1, 3), (1, 3), rate=1.0)
    identity(loss.regressor)

    found = loss(torch.tensor([[-5.0, 1.0, 0.0]]), torch.tensor([[-2.0, -3.0, 4.0]]))

    # The first is below a negative margin; the second is 4 above its own, the third 4 away.
    assert found.item() == pytest.approx((0 + 16 + 16) / 3)
    assert loss.margin.tolist() == [-2.0, -3.0, 0.0]


def test_the_deepest_layer_is_compared_alone_and_on_three_scales():
    loss = made("review", ((1, 1, 8, 8),), ((1, 1, 8, 8),), width=1)
    for layer in (loss.inputs[0], loss.outputs[0]):
        identity(layer)
        torch.nn.init.zeros_(layer.bias)
    student = torch.zeros(1, 1, 8, 8)
    teacher = torch.zeros(1, 1, 8, 8)
    teacher[..., :4, :] = 2.0

    found = loss((student,), (teacher,))

    # Means of squares: 2 at length 8, 2 at 4, 2 at 2 and 1 at 1.
    expected = (2 + 0.5 * 2 + 0.25 * 2 + 0.125 * 1) / 1.875
    assert found.item() == pytest.approx(expected)


def test_a_virtual_teacher_has_nothing_to_teach_a_student_that_is_like_it():
    teacher_free = tersely.registry().losses["teacher_free"]
    logits = torch.tensor([[0.9, 0.05, 0.05]])

    assert teacher_free(logits, None, labels=torch.tensor([0])).item() == pytest.approx(0, abs=1e-4)
    assert teacher_free(logits, None, labels=torch.tensor([1])).item() > 0.01


def test_masks_follow_from_the_number_of_calls():
    shape = (1, 2, 4, 4)
    loss = made("masked_generation", shape, shape)
    values = torch.ones(shape)
    first = loss(values, values).item()
    second = loss(values, values).item()
    loss.calls.zero_()

    assert loss(values, values).item() == first != second
