import pytest


@pytest.mark.parametrize(
    ("value", "shape", "size"),
    [
        ([4, 4], (8, 8), (4, 4)),
        ([4, 4], (8, 4, 4, 4), (1, 1, 4, 4)),
        ([1, -1], (8, 4, 4, 4), (1, 1, 1, -1)),
        ([1, -1, -1, -1], (8, 4, 4, 4), (1, -1, -1, -1)),
        ([4], (8, 8), (1, 4)),
        ([[4, 4]], (8, 4, 4, 4), (1, 1, 4, 4)),
        ([[1, -1], "back"], (8, 4, 4, 4), (1, -1, 1, 1)),
        ([[1], "back", -1], (8, 4, 4, 4), (1, -1, -1, -1)),
        ([[4], "front", -1], (8, 4, 4, 4), (-1, -1, -1, 4)),
        ([[2, 2], "front", 3], (3, 4, 4), (3, 2, 2)),
        ([-1], (8,), (-1,)),
    ],
)
def test_a_list_is_padded_to_the_tensors_rank(cut, value, shape, size):
    blocks = cut("block", shape, value=value)
    assert (blocks.size, blocks.scope, blocks.keep) == (size, None, None)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ([-1, 4], (-1, 4)),
        ([1, 4], (-1, 4)),
        ([4], (-1, 4)),
        ([[-1], "back", 4], (-1, 4)),
    ],
)
def test_the_batch_of_an_activation_is_never_divided(cut, value, size):
    assert cut("block", (2, 8), kind="input", value=value).size == size


def test_a_list_may_cover_the_sample_alone(cut):
    assert cut("block", (2, 8, 6, 6), kind="output", value=[2, -1, -1]).size == (-1, 2, -1, -1)


def test_a_block_of_several_samples_is_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("block", (2, 8), kind="input", value=[2, 4])
    assert str(caught.value) == (
        "[2, 4] puts 2 samples of a batch into one block of layer._input_; a batch has any number "
        "of samples, so write -1 there or leave the entry out"
    )


def test_more_sizes_than_dimensions_are_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("block", (8, 8), value=[1, 4, 4])
    assert str(caught.value) == (
        "[1, 4, 4] has 3 sizes, and layer.weight has 2 dimensions (shape [8, 8]); write at most 2"
    )
