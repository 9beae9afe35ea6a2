import pytest
import torch

from tersely.arithmetic.pieces import piece, pieces


def starts(shape, largest):
    return [
        tuple((one.start, one.stop) for one in index) for index in pieces(shape, largest=largest)
    ]


def test_rows_go_together_while_they_fit():
    assert starts((5, 3), 6) == [((0, 2),), ((2, 4),), ((4, 6),)]


def test_a_row_that_does_not_fit_is_cut_itself():
    assert starts((2, 3), 2) == [
        ((0, 1), (0, 2)),
        ((0, 1), (2, 4)),
        ((1, 2), (0, 2)),
        ((1, 2), (2, 4)),
    ]


def test_a_tensor_that_fits_is_one_piece():
    assert starts((2, 3), 6) == [((0, 2),)]


@pytest.mark.parametrize(("shape", "count"), [((), 1), ((0,), 0), ((3, 0, 2), 0)])
def test_a_number_is_one_piece_and_nothing_is_none(shape, count):
    assert len(list(pieces(shape, largest=4))) == count


@pytest.mark.parametrize("largest", [1, 2, 5, 12, 60, 1000])
def test_pieces_cover_everything_once_and_are_small_enough(largest):
    seen = torch.zeros(3, 4, 5)
    for index in pieces(seen.shape, largest=largest):
        part = piece(seen, index)
        part += 1
        assert part.numel() <= largest
        assert part.is_contiguous()
    assert (seen == 1).all()


def test_one_value_for_a_dimension_belongs_to_every_piece():
    per_row, per_column = torch.arange(4.0).view(4, 1), torch.arange(3.0).view(1, 3)
    found = [
        (piece(per_row, index).flatten().tolist(), piece(per_column, index).flatten().tolist())
        for index in pieces((4, 3), largest=6)
    ]
    assert found == [([0.0, 1.0], [0.0, 1.0, 2.0]), ([2.0, 3.0], [0.0, 1.0, 2.0])]
