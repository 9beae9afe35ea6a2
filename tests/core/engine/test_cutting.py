"""What stays of numbers that belong to a tensor which is cut."""

import pytest
import torch

from tersely.engine.state.cutting import Cut, cut_saved, move_along
from tersely.engine.state.saver import Saved

ROWS, COLUMNS = torch.tensor([0, 2]), torch.tensor([1, 2])


@pytest.fixture
def square():
    return Cut("fc.weight", (3, 3), (2, 2), (ROWS, COLUMNS))


def test_factors_of_inputs_lose_what_the_columns_lose(square):
    assert square.of_inputs(torch.tensor([1.0, 2.0, 3.0]), 1).tolist() == [2.0, 3.0]


def test_factors_of_a_grouped_convolution_are_unknown():
    cut = Cut("conv.weight", (4, 2, 1), (2, 1, 1), (ROWS, None, None), torch.tensor([[0], [1]]))

    assert cut.of_inputs(torch.ones(4), 1) is None


def test_a_vector_that_was_observed_of_a_square_matrix_is_left_out(square):
    numbers = {"low": torch.tensor([1.0, 2.0, 3.0])}
    saved = Saved({("observed", "fc.weight"): dict(numbers), ("bias", "fc.weight"): numbers}, {})

    found = cut_saved(saved, {"fc.weight": square})

    assert ("observed", "fc.weight") not in found.parts
    assert found.parts["bias", "fc.weight"]["low"].tolist() == [1.0, 3.0]


def test_a_mask_of_one_row_gets_the_columns_of_each_row_that_stays():
    cut = Cut("conv.weight", (4, 2, 1), (2, 1, 1), (ROWS, None, None), torch.tensor([[0], [1]]))

    assert cut(torch.tensor([[[5.0], [7.0]]])).tolist() == [[[5.0]], [[7.0]]]


def test_values_from_before_a_change_take_over_what_the_values_take_over():
    saved = Saved(
        {
            ("now", "fc.bias"): {"": torch.tensor([1.0, 2.0])},
            ("before", "fc.bias"): {"": torch.tensor([5.0, 6.0])},
        },
        {},
    )

    move_along(saved, "fc.bias", ("now", "before"), torch.tensor([3.0, 3.0]))

    assert saved.one("now", "fc.bias").tolist() == [3.0, 3.0]
    assert saved.one("before", "fc.bias").tolist() == [7.0, 7.0]
