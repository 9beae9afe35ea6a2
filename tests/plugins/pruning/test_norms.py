import pytest
import torch

WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 5.0], [-1.0, -1.0]])


def test_level_ranks_elements_by_magnitude(rank):
    assert torch.equal(rank("level", WEIGHT), WEIGHT.abs())


def test_level_ranks_larger_blocks_by_their_sum_of_magnitudes(rank):
    assert rank("level", WEIGHT, (1, -1)).tolist() == [[7.0], [5.0], [2.0]]


def test_l1_norm_sums_magnitudes_of_rows(rank):
    assert rank("l1_norm", WEIGHT, (1, -1)).tolist() == [[7.0], [5.0], [2.0]]


def test_l1_norm_sums_magnitudes_of_columns(rank):
    assert rank("l1_norm", WEIGHT, (-1, 1)).tolist() == [[4.0, 10.0]]


def test_l2_norm_is_the_length_of_rows(rank):
    assert rank("l2_norm", WEIGHT, (1, -1)).flatten().tolist() == pytest.approx([5, 5, 2**0.5])


def test_l2_norm_of_four_by_four_blocks(rank):
    weight = torch.cat([torch.full((4, 4), 2.0), torch.full((4, 4), -3.0)], 1)
    assert rank("l2_norm", weight, (4, 4)).tolist() == [[8.0, 12.0]]


def test_l2_norm_of_single_elements_is_their_magnitude(rank):
    assert torch.equal(rank("l2_norm", WEIGHT), WEIGHT.abs())


def test_l1_norm_of_kernels_of_a_convolution(rank):
    weight = torch.arange(2.0 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    found = rank("l1_norm", weight, (1, 1, -1, -1))
    assert found[..., 0, 0].tolist() == [[6.0, 22.0, 38.0], [54.0, 70.0, 86.0]]


@pytest.mark.parametrize("name", ["level", "l1_norm", "l2_norm"])
@pytest.mark.parametrize("size", [(1, 1), (1, -1), (-1, 1), (2, 3), (-1, -1)])
def test_a_tensor_that_lies_apart_in_memory_ranks_alike(rank, name, size):
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    apart = weight.T.contiguous().T
    torch.testing.assert_close(rank(name, apart, size), rank(name, weight, size))


@pytest.mark.parametrize("name", ["level", "l1_norm", "l2_norm"])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_scores_are_float32_or_as_wide_as_the_weights(rank, name, dtype, expected):
    assert rank(name, WEIGHT.to(dtype), (1, -1)).dtype == expected


@pytest.mark.parametrize("name", ["l1_norm", "l2_norm"])
def test_norms_of_float16_weights_do_not_overflow(rank, name):
    weight = torch.full((1, 64), 60000.0, dtype=torch.float16)
    assert rank(name, weight, (1, -1)).isfinite().all()


@pytest.mark.parametrize("name", ["level", "l1_norm", "l2_norm", "fpgm"])
@pytest.mark.parametrize(("shape", "size"), [((0, 4), (1, -1)), ((), ()), ((3,), (1,))])
def test_empty_scalar_and_vector_tensors_have_one_score_per_block(rank, name, shape, size):
    counts = {(0, 4): (0, 1), (): (), (3,): (3,)}
    assert rank(name, torch.ones(shape), size).shape == counts[shape]


@pytest.mark.parametrize("name", ["level", "l1_norm", "l2_norm", "fpgm"])
def test_weights_are_left_as_they_were(rank, name):
    weight = torch.nn.Parameter(WEIGHT.clone())
    scores = rank(name, weight, (1, -1))
    assert torch.equal(weight, WEIGHT)
    assert not scores.requires_grad
