"""Which positions attention masks mark as data (rule B8.5)."""

import pytest
import torch

from tersely.arithmetic.positions import data_positions


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[1, 0, 7]], [True, False, True]),
        ([[0.0, -9_998.0, -9_999.0]], [True, True, False]),
        ([[1.0, 0.0, 0.5]], [True, False, True]),
        ([[[0.0, 0.0], [0.0, 0.0]]], [True, True]),
        ([[[0.0, -1e9], [-1e9, -1e9]]], [True, False]),
        ([[[0, 1], [0, 1]]], [False, True]),
    ],
    ids=["integers", "added", "floats", "added zeros", "queries", "integers of queries"],
)
def test_a_mask_tells_what_is_data(mask, expected):
    assert data_positions(torch.tensor(mask)).tolist() == [expected]
