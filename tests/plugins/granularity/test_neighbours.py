"""N:M sparsity and groups, which both lie along the input dimension."""

import pytest

from tersely.arithmetic.blocks import Blocks


def test_two_of_four_lie_along_a_linear_weights_inputs(cut):
    assert cut("n_m", (6, 8), value="2:4") == Blocks((1, 1), scope=(1, 4), keep=2)


def test_four_of_eight_lie_along_a_convolutions_input_channels(cut):
    blocks = cut("n_m", (6, 8, 3, 3), value="4:8")
    assert blocks == Blocks((1, 1, 1, 1), scope=(1, 8, 1, 1), keep=4)


def test_n_of_m_lie_along_dimension_zero_of_a_transposed_convolution(cut):
    blocks = cut("n_m", (4, 6, 3, 3), value="1:2", input_dim=0, output_dim=1)
    assert blocks == Blocks((1, 1, 1, 1), scope=(2, 1, 1, 1), keep=1)


def test_n_of_m_of_an_activation_lie_along_its_channels(cut):
    blocks = cut("n_m", (2, 8, 5, 5), kind="output", value="2:4", channel_dim=1)
    assert blocks == Blocks((-1, 1, 1, 1), scope=(-1, 4, 1, 1), keep=2)


@pytest.mark.parametrize("value", ["4:4", "5:4"])
def test_n_of_m_that_masks_nothing_is_an_error(cut, value):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("n_m", (6, 8), value=value)
    assert str(caught.value) == (
        f'"{value}" keeps {value[0]} of every 4, which masks nothing; write N:M with N below M, as '
        'in "2:4"'
    )


def test_a_run_that_does_not_divide_the_inputs_is_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("n_m", (8, 6), value="2:4")
    assert str(caught.value) == (
        '"2:4" needs a multiple of 4 neighbours, and dimension 1 of layer.weight has 6 (shape '
        "[8, 6])"
    )


def test_n_of_m_of_a_vector_is_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("n_m", (8,), value="2:4")
    assert str(caught.value) == (
        '"2:4" counts along the input dimension, and layer.weight of shape [8] has none; leave it '
        "out of target_names or write another granularity"
    )


def test_groups_lie_along_the_inputs_of_every_output(cut):
    assert cut("group", (6, 256), value={"group": 128}) == Blocks((1, 128))


def test_groups_of_a_convolution_span_its_kernel(cut):
    assert cut("group", (6, 8, 3, 3), value={"group": 4}) == Blocks((1, 4, -1, -1))


def test_groups_of_a_transposed_convolution_lie_along_dimension_zero(cut):
    blocks = cut("group", (8, 6, 3, 3), value={"group": 4}, input_dim=0, output_dim=1)
    assert blocks == Blocks((4, 1, -1, -1))


def test_groups_of_an_activation_lie_along_its_channels(cut):
    assert cut("group", (2, 5, 8), kind="input", value={"group": 4}) == Blocks((-1, -1, 4))


def test_groups_that_do_not_divide_the_inputs_are_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("group", (6, 100), value={"group": 128})
    assert str(caught.value) == (
        "groups of 128 do not divide dimension 1 of layer.weight, which has 100 elements (shape "
        "[6, 100])"
    )


def test_groups_of_a_vector_are_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("group", (8,), value={"group": 4})
    assert str(caught.value) == (
        "a group lies along the input dimension, and layer.weight of shape [8] has none; leave it "
        "out of target_names or write another granularity"
    )
