"""Which outputs of a module are inputs of a weight: numbers by hand."""

import pytest
import torch

from tersely.quantization.factors.output_rows import OutputRows, row_layouts


@pytest.mark.parametrize(
    ("outputs", "inputs", "index"),
    [
        (4, 8, [0, 1, 0, 1, 2, 3, 2, 3]),  # two heads of two, each read twice
        (12, 4, [8, 9, 10, 11]),  # queries, keys, values
        (12, 4, [4, 5, 10, 11]),  # the three of each head of two
        (8, 4, [1, 3, 5, 7]),  # gates between
        (8, 4, [0, 1, 2, 3]),  # gates last
        (16, 8, [12, 13, 12, 13, 14, 15, 14, 15]),  # four queries, two keys, two values
        (16, 8, [6, 7, 6, 7, 14, 15, 14, 15]),  # the same by pairs of queries
    ],
)
def test_rows_lie_where_projections_put_them(outputs, inputs, index):
    found = [one.index(inputs).tolist() for one in row_layouts(outputs, inputs)]
    assert index in found
    assert len(found) == len({tuple(one) for one in found})


@pytest.mark.parametrize(("outputs", "inputs"), [(3, 8), (9, 8), (8, 8), (5, 4), (7, 2)])
def test_other_numbers_of_channels_are_no_rows(outputs, inputs):
    assert list(row_layouts(outputs, inputs)) == []


def test_heads_have_a_size_that_the_model_states():
    assert {one.size for one in row_layouts(16, 64, heads={4})} == {4}


def test_tied_factors_are_geometric_means_over_the_heads_that_share():
    rows = OutputRows(outputs=4, start=0, step=2, size=2, repeats=2)
    factors = torch.tensor([1.0, 2.0, 4.0, 8.0, 1.0, 1.0, 9.0, 1.0])
    tied = rows.tied(factors)
    torch.testing.assert_close(tied, torch.tensor([2.0, 4.0, 2.0, 4.0, 3.0, 1.0, 3.0, 1.0]))
    assert rows.is_tied(tied)
    assert not rows.is_tied(factors)
    torch.testing.assert_close(rows.of_outputs(tied), torch.tensor([2.0, 4.0, 3.0, 1.0]))


def test_outputs_that_are_not_read_keep_their_size():
    rows = OutputRows(outputs=6, start=1, step=2, size=1)
    assert rows.of_outputs(torch.tensor([2.0, 3.0, 5.0])).tolist() == [1, 2, 1, 3, 1, 5]


def test_rows_fit_whole_runs_of_outputs_that_are_there():
    rows = OutputRows(outputs=6, start=4, step=2, size=2)
    assert rows.fits(2)
    assert not rows.fits(4)
    assert not rows.fits(3)
