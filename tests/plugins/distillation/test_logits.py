"""Losses that compare logits, by hand."""

import math

import pytest
import torch
from messages.sessions import LINEAR_PROJECTION

from tersely_distillation.correlation import correlation
from tersely_distillation.decoupled_kl import decoupled_kl
from tersely_distillation.kl import kl

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
        f"teacher's is (2, 100); {LINEAR_PROJECTION}, 10, to the teacher's, 100"
    )


def test_kl_of_numbers_is_refused():
    with pytest.raises(ValueError, match="kl compares logits of one shape"):
        kl(torch.tensor(1.0), torch.tensor(1.0))


def logits(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


# The teacher's first class is 0. It has (1/2, 1/2) against the rest, the student (1/4, 3/4); the
# others have (1/2, 1/2) among themselves, the student's (1/3, 2/3).
UNSURE = logits([1 / 4, 1 / 4, 1 / 2])
SURE = logits([1 / 2, 1 / 4, 1 / 4])
TARGET = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
OTHERS = 0.5 * math.log(3 / 2) + 0.5 * math.log(3 / 4)


def test_decoupled_kl_weighs_the_first_class_and_the_others():
    loss = decoupled_kl(UNSURE, SURE, alpha=3.0, beta=5.0, temperature=1.0)

    assert loss.item() == pytest.approx(3 * TARGET + 5 * OTHERS, rel=1e-12)


def test_decoupled_kl_defaults_to_weights_of_one_and_eight_at_a_temperature_of_four():
    loss = decoupled_kl(4 * UNSURE, 4 * SURE)

    assert loss.item() == pytest.approx(16 * (TARGET + 8 * OTHERS), rel=1e-12)


def test_decoupled_kl_divides_by_the_batch_and_sums_over_tokens():
    loss = decoupled_kl(UNSURE.expand(2, 5, 3), SURE.expand(2, 5, 3), temperature=1.0)

    assert loss.item() == pytest.approx(5 * (TARGET + 8 * OTHERS), rel=1e-12)


def test_decoupled_kl_is_kl_where_the_others_weigh_what_the_teacher_leaves_them():
    student = torch.tensor([[0.3, -1.0, 2.0, 0.5]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 3.0, -0.5, 0.0]], dtype=torch.float64)
    left = 1 - (teacher / 2).softmax(-1).max().item()

    loss = decoupled_kl(student, teacher, alpha=1.0, beta=left, temperature=2.0)

    torch.testing.assert_close(loss, kl(student, teacher))


def test_decoupled_kl_takes_the_lowest_of_equal_classes():
    student, teacher = logits([1 / 5, 3 / 5, 1 / 5]), logits([2 / 5, 2 / 5, 1 / 5])

    loss = decoupled_kl(student, teacher, beta=0.0, temperature=1.0)

    # Class 0 is the target: (2/5, 3/5) against (1/5, 4/5).
    expected = 2 / 5 * math.log(2) + 3 / 5 * math.log(3 / 4)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_decoupled_kl_hears_the_others_when_the_teacher_is_sure():
    teacher = torch.tensor([[1000.0, 0.0, 0.0]])
    student = torch.tensor([[1000.0, 0.0, math.log(2.0)]], requires_grad=True)

    loss = decoupled_kl(student, teacher, beta=1.0, temperature=1.0)
    loss.backward()

    # (1/2, 1/2) against (1/3, 2/3), where 1 - p of the target is 0 in float32.
    assert loss.item() == pytest.approx(OTHERS, rel=1e-5)
    torch.testing.assert_close(student.grad, torch.tensor([[0.0, -1 / 6, 1 / 6]]))


# Between classes: the first rows are equal, correlation 1; deviations of the second are (-1, 2, -1)
# and (-1, -1, 2) twelfths, correlation (1 - 2 - 2) / 6 = -1/2. Between samples: class 0 falls in
# both, correlation 1; class 1 does not vary in the teacher and class 2 not in the student, 0.
CORRELATED = logits([1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4])
STRONGER = logits([1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2])
BETWEEN_CLASSES = (0 + 3 / 2) / 2
BETWEEN_SAMPLES = (0 + 1 + 1) / 3


def test_correlation_weighs_what_is_between_classes_and_between_samples():
    loss = correlation(CORRELATED, STRONGER, beta=2.0, gamma=3.0)

    assert loss.item() == pytest.approx(2 * BETWEEN_CLASSES + 3 * BETWEEN_SAMPLES, rel=1e-12)


def test_correlation_of_one_sample_is_between_its_classes():
    student, teacher = logits([1 / 2, 1 / 4, 1 / 4]), logits([1 / 2, 1 / 3, 1 / 6])

    # Deviations (2, -1, -1) / 12 and (1, 0, -1) / 6: 3 / (sqrt 6 * sqrt 2) = sqrt 3 / 2.
    expected = 1 - math.sqrt(3) / 2
    assert correlation(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_correlation_divides_logits_by_its_temperature_and_multiplies_by_its_square():
    loss = correlation(2 * CORRELATED, 2 * STRONGER, temperature=2.0)

    assert loss.item() == pytest.approx(4 * (BETWEEN_CLASSES + BETWEEN_SAMPLES), rel=1e-12)


def test_correlation_counts_every_token_as_a_sample():
    loss = correlation(CORRELATED[None], STRONGER[None])

    torch.testing.assert_close(loss, correlation(CORRELATED, STRONGER))


def test_correlation_does_not_mistake_rounding_for_variation():
    student = torch.zeros(3, 7).requires_grad_()
    teacher = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))

    loss = correlation(student, teacher)
    loss.backward()

    # Sevenths do not vary, so both parts count as 1.
    assert loss.item() == 2.0
    assert not student.grad.any()


@pytest.mark.parametrize("loss", [decoupled_kl, correlation])
def test_a_single_class_is_refused(loss):
    with pytest.raises(
        ValueError, match="at least two classes, and the last dimension of"
    ) as found:
        loss(torch.zeros(4, 1), torch.zeros(4, 1))

    assert str(found.value).startswith(loss.__name__)


def test_decoupled_kl_takes_the_label_for_the_target_as_its_paper_does():
    # Of probabilities 2/8, 5/8 and 1/8 the others of class 0 have 5/6 and 1/6.
    teacher = torch.tensor([[2.0, 5.0, 1.0]], dtype=torch.float64).log()
    student = torch.zeros(1, 3, dtype=torch.float64)

    loss = decoupled_kl(
        student, teacher, alpha=0.0, beta=1.0, temperature=1.0, labels=torch.tensor([0])
    )

    expected = 5 / 6 * math.log(5 / 3) + 1 / 6 * math.log(1 / 3)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_a_mask_leaves_labels_of_padding_out():
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    labels = torch.tensor([[0, 4, -100], [2, -100, -100]])
    mask = labels >= 0

    loss = decoupled_kl(student, teacher, labels=labels, mask=mask)

    expected = decoupled_kl(student[mask], teacher[mask], labels=labels[mask])
    assert torch.equal(loss, expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([3]), "labels from 3 to 3 for 3 classes"),
        (torch.tensor([-100]), "leave positions without a label out by a mask"),
        (
            torch.tensor([0, 1]),
            r"labels of shape \(2,\) and torch.int64 for logits of shape \(1, 3\)",
        ),
        (torch.tensor([0.0]), "expected one integer for each row of classes"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        decoupled_kl(torch.zeros(1, 3), torch.ones(1, 3), labels=labels)
