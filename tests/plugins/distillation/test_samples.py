"""Losses that compare the samples of a batch with each other, by hand."""

import math

import pytest
import torch

from tersely_distillation.probabilistic import probabilistic
from tersely_distillation.relational import relational
from tersely_distillation.similarity_preserving import similarity_preserving
from tersely_distillation.vectors import off_diagonal

ALL = [similarity_preserving, relational, probabilistic]


def column(*numbers):
    """A batch of samples with one feature each."""
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def test_similarity_preserving_compares_rows_of_products():
    student = torch.eye(2, dtype=torch.float64)

    loss = similarity_preserving(student, column(3, 4))

    # Rows (1, 0) and (0, 1) against (9, 12) / 15 and (12, 16) / 20, both (3/5, 4/5):
    # ((2/5)^2 + (4/5)^2 + (3/5)^2 + (1/5)^2) / 4
    assert loss.item() == pytest.approx(0.3, rel=1e-12)


def distances(student, teacher):
    return relational(student, teacher, angle_weight=0.0).item()


def angles(student, teacher):
    return relational(student, teacher, distance_weight=0.0, angle_weight=1.0).item()


def test_relational_compares_distances_in_units_of_their_mean():
    # Pairs 01, 02, 12: (1, 3, 2) / 2 against (1, 2, 1) / (4/3), so they differ by -1/4, 0, 1/4.
    # The mean of 1/2 (1/4)^2, 0 and 1/2 (1/4)^2
    assert distances(column(0, 1, 3), column(0, 1, 2)) == pytest.approx(1 / 48, rel=1e-12)


def test_relational_is_linear_for_distances_that_differ_by_more_than_one():
    # (0, 3, 3) / 2 against (4, 2, 2) / (8/3): they differ by -3/2, 3/4 and 3/4.
    # The mean of 3/2 - 1/2, 1/2 (3/4)^2 and 1/2 (3/4)^2
    assert distances(column(0, 0, 3), column(0, 4, 2)) == pytest.approx(25 / 48, rel=1e-12)


# A triangle of sides 3, 4 and 5 with its right angle at sample 0: cosines 0, 3/5 and 4/5.
TRIANGLE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
# Sample 0 lies between the others: cosines -1, 1 and 1.
LINE = column(0, -1, 1)


def test_relational_compares_the_cosines_of_triangles():
    # The mean of 1/2, 1/2 (2/5)^2 and 1/2 (1/5)^2
    assert angles(TRIANGLE, LINE) == pytest.approx(0.2, rel=1e-12)


def test_relational_weighs_distances_by_one_and_angles_by_two():
    expected = distances(TRIANGLE, LINE) + 2 * angles(TRIANGLE, LINE)

    assert relational(TRIANGLE, LINE).item() == pytest.approx(expected, rel=1e-12)


def test_relational_sees_neither_position_nor_scale_nor_rotation():
    turned = TRIANGLE @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)

    assert relational(7 * turned + 3, TRIANGLE).item() == pytest.approx(0.0, abs=1e-24)


def test_relational_of_two_samples_has_nothing_to_tell():
    assert relational(column(0, 1), column(0, 5)).item() == 0.0


def test_relational_skips_the_angles_of_samples_that_coincide():
    student = column(2, 2, 5).requires_grad_()

    loss = relational(student, TRIANGLE, distance_weight=0.0, angle_weight=1.0)
    loss.backward()

    # The student's cosines are 0, 0 and, at sample 2, that of (5 to 2, 5 to 2), 1, against
    # 0, 3/5 and 4/5: the mean of 0, 1/2 (3/5)^2 and 1/2 (1/5)^2
    assert loss.item() == pytest.approx(0.2 / 3, rel=1e-12)
    assert student.grad.isfinite().all()


def test_probabilistic_compares_who_is_whose_neighbour():
    student = torch.eye(3, dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)

    loss = probabilistic(student, teacher)

    # The student's neighbours are all as probable, 1/2. The teacher's samples 0 and 1 have a
    # similarity of 1 and of 1/2 to sample 2: (2/3, 1/3), (2/3, 1/3) and (1/2, 1/2).
    one = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert loss.item() == pytest.approx((one + one + 0) / 3, rel=1e-12)


def test_probabilistic_survives_neighbours_that_are_impossible():
    student = column(1, 1, -1).requires_grad_()

    loss = probabilistic(student, torch.eye(3, dtype=torch.float64))
    loss.backward()

    # Samples 0 and 1 give each other everything and sample 2 the smallest number e above 1 less
    # 1; sample 2 gives both 1/2: two rows of 1/2 ln (1/2) + 1/2 ln (1/2 / e), up to e
    smallest = torch.finfo(torch.float64).eps
    row = 0.5 * math.log(0.5) + 0.5 * math.log(0.5 / smallest)
    assert loss.item() == pytest.approx(2 * row / 3, rel=1e-9)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", ALL)
def test_samples_may_have_another_shape_than_the_teachers(loss):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 2, 3, generator=generator)
    teacher = torch.randn(4, 5, 2, 2, generator=generator)

    found = loss(student, teacher)

    assert found.item() > 0
    torch.testing.assert_close(found, loss(student.flatten(1), teacher.flatten(1)))


@pytest.mark.parametrize("loss", ALL)
def test_a_sample_may_be_a_single_number(loss):
    numbers = torch.tensor([1.0, -2.0, 4.0])

    assert loss(numbers, numbers[:, None]).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize(("student", "teacher"), [((4, 8), (3, 8)), ((), ())])
def test_samples_of_different_batches_are_refused(loss, student, teacher):
    with pytest.raises(ValueError, match=loss.__name__) as caught:
        loss(torch.zeros(student), torch.zeros(teacher))

    assert str(caught.value) == (
        f"{loss.__name__} compares the samples of one batch, dimension 0: the student's is "
        f"{student}, the teacher's is {teacher}"
    )


def test_a_matrix_loses_its_diagonal_only():
    matrix = torch.arange(9).reshape(3, 3)

    assert off_diagonal(matrix).tolist() == [[1, 2], [3, 5], [6, 7]]
    assert off_diagonal(matrix[:1, :1]).shape == (1, 0)
