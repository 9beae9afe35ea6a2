import pytest
import torch

from tersely import PlanError
from tersely_pruning import fpgm

# Three points of a 3-4-5 triangle: distances 3, 4 and 5.
TRIANGLE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])


def test_the_score_is_the_sum_of_distances_to_all_others(rank):
    assert rank("fpgm", TRIANGLE, (1, -1)).flatten().tolist() == pytest.approx([7.0, 8.0, 9.0])


def test_filters_of_a_convolution_are_compared_as_vectors(rank):
    weight = TRIANGLE.reshape(3, 1, 1, 2)
    found = rank("fpgm", weight, (1, -1, -1, -1))
    assert found.shape == (3, 1, 1, 1)
    assert found.flatten().tolist() == pytest.approx([7.0, 8.0, 9.0])


def test_columns_are_compared_as_vectors(rank):
    assert rank("fpgm", TRIANGLE.T, (-1, 1)).tolist() == [pytest.approx([7.0, 8.0, 9.0])]


def test_blocks_of_four_by_four_are_compared_as_vectors(rank):
    weight = torch.cat([torch.zeros(4, 4), torch.ones(4, 4)], 1)
    assert rank("fpgm", weight, (4, 4)).tolist() == [pytest.approx([4.0, 4.0])]


def test_elements_of_a_vector_are_compared_as_numbers(rank):
    scores = rank("fpgm", torch.tensor([0.0, 1.0, 5.0]), (1,))
    assert scores.tolist() == pytest.approx([6.0, 5.0, 9.0])


def test_depthwise_filters_of_one_element_are_compared_as_numbers(rank):
    scores = rank("fpgm", torch.tensor([0.0, 1.0, 5.0]).reshape(3, 1, 1, 1), (1, -1, -1, -1))
    assert scores.flatten().tolist() == pytest.approx([6.0, 5.0, 9.0])


def test_equal_filters_have_no_distance(rank):
    weight = torch.randn(1, 100, generator=torch.Generator().manual_seed(0)).expand(5, 100)
    assert rank("fpgm", weight, (1, -1)).flatten().tolist() == pytest.approx([0.0] * 5, abs=1e-4)


def test_a_common_offset_does_not_drown_the_distances(rank):
    found = rank("fpgm", TRIANGLE + 10_000, (1, -1))
    assert found.flatten().tolist() == pytest.approx([7.0, 8.0, 9.0], rel=1e-5)


def test_more_filters_than_fit_at_a_time_get_the_same_scores(rank, monkeypatch):
    weight = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at_once = rank("fpgm", weight, (1, -1))
    monkeypatch.setattr(fpgm, "_ROWS_AT_A_TIME", 16)
    assert torch.allclose(rank("fpgm", weight, (1, -1)), at_once, rtol=1e-12)


def test_scores_agree_with_a_loop_over_all_pairs(rank):
    weight = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    slow = [sum((row - other).norm() for other in weight).item() for row in weight]
    assert rank("fpgm", weight, (1, -1)).flatten().tolist() == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_compared_in_float32(rank, dtype):
    scores = rank("fpgm", TRIANGLE.to(dtype), (1, -1))
    assert scores.dtype == torch.float32
    assert scores.flatten().tolist() == pytest.approx([7.0, 8.0, 9.0])


def test_single_elements_of_a_matrix_are_an_error(rank):
    with pytest.raises(PlanError) as caught:
        rank("fpgm", TRIANGLE)
    assert str(caught.value) == (
        "layer.weight: fpgm compares blocks as vectors, and its granularity makes every element a "
        "block; write out_channel or a block of more than one element"
    )
