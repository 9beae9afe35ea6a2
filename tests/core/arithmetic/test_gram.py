"""Sums of products of inputs, damped and inverted, with numbers worked out by hand."""

import pytest
import torch
from messages.sessions import inputs_make_singular

from tersely.arithmetic.gram import BLOCK, add_gram, damp_gram, inverse_factor, mirror_gram


def test_products_of_every_vector_are_added_to_what_is_there():
    total = torch.tensor([[[10.0, 0.0], [20.0, 30.0]]])

    add_gram(total, torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))

    # 1*1 + 3*3 = 10, 2*1 + 4*3 = 14, 2*2 + 4*4 = 20
    assert total[0].tril().tolist() == [[20, 0], [34, 50]]


def test_every_group_has_products_of_its_own():
    total = torch.zeros(2, 1, 1)

    add_gram(total, torch.tensor([[[2.0], [1.0]], [[3.0], [0.0]]]))

    assert total.flatten().tolist() == [5, 9]


def test_more_columns_than_one_block_has_are_all_summed_up():
    columns = BLOCK + 3
    rows = torch.randn(1, 5, columns, generator=torch.Generator().manual_seed(0)).double()
    total = torch.zeros(1, columns, columns).double()
    total[0, :BLOCK, BLOCK:] = torch.nan

    add_gram(total, rows)

    torch.testing.assert_close(total[0].tril(), (rows[0].T @ rows[0]).tril())
    assert total[0, :BLOCK, BLOCK:].isnan().all()


def test_the_lower_triangle_tells_the_upper():
    lower = torch.tensor([[1.0, torch.nan], [2.0, 3.0]])

    assert mirror_gram(lower).tolist() == [[1, 2], [2, 3]]


def test_a_share_of_the_mean_of_the_diagonal_is_added_to_it():
    gram = torch.tensor([[4.0, 2.0], [2.0, 6.0]])

    # the mean is 5
    assert damp_gram(gram, 0.2).tolist() == [[5, 2], [2, 7]]
    assert gram.tolist() == [[4, 2], [2, 6]]


def test_an_input_that_was_always_zero_counts_as_if_it_were_alone():
    gram = torch.tensor([[4.0, 2.0, 0.0], [2.0, 6.0, 0.0], [0.0, 0.0, 0.0]]).double()

    # A third of 10 is the mean, which the dead input's 1 is not part of.
    expected = [[5.0, 2.0, 0.0], [2.0, 7.0, 0.0], [0.0, 0.0, 2.0]]
    assert damp_gram(gram, 0.3).tolist() == [pytest.approx(row) for row in expected]


def test_inputs_of_which_one_was_always_zero_can_be_inverted_without_damping():
    gram = torch.tensor([[4.0, 0.0], [0.0, 0.0]])

    assert inverse_factor(damp_gram(gram, 0.0)).tolist() == [[0.5, 0], [0, 1]]


def test_the_factor_is_that_of_the_inverse():
    # L L^T = [[1/4, 1/4], [1/4, 5/4]], whose inverse is [[5, -1], [-1, 1]].
    factor = inverse_factor(torch.tensor([[5.0, -1.0], [-1.0, 1.0]]).double())

    torch.testing.assert_close(factor, torch.tensor([[0.5, 0.0], [0.5, 1.0]]).double())


def test_a_singular_matrix_is_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=inputs_make_singular()):
        inverse_factor(torch.ones(2, 2))
