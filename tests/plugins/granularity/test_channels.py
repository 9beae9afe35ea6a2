import pytest

from tersely.arithmetic.blocks import Blocks


def test_in_channel_keeps_dimension_one_apart(cut):
    assert cut("in_channel", (8, 4, 3, 3)) == Blocks((-1, 1, -1, -1))


def test_in_channel_is_dimension_one_of_a_transposed_convolution_too(cut):
    blocks = cut("in_channel", (4, 8, 3, 3), output_dim=1, input_dim=0)
    assert blocks == Blocks((-1, 1, -1, -1))


def test_out_channel_keeps_dimension_zero_apart(cut):
    assert cut("out_channel", (8, 4, 3, 3)) == Blocks((1, -1, -1, -1))


def test_out_channel_of_an_embedding_is_a_row_of_its_vocabulary(cut):
    assert cut("out_channel", (10, 6), output_dim=1, input_dim=0) == Blocks((1, -1))


def test_out_channel_of_a_vector_is_each_element(cut):
    assert cut("out_channel", (8,)) == Blocks((1,))


@pytest.mark.parametrize("name", ["in_channel", "out_channel"])
@pytest.mark.parametrize("kind", ["input", "output"])
def test_weight_channels_of_an_activation_are_an_error_that_names_per_channel(cut, name, kind):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut(name, (2, 8), kind=kind)
    assert str(caught.value) == (
        f"{name} divides parameters, and layer._{kind}_ is an {kind}; write per_channel"
    )


def test_in_channel_of_a_vector_is_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("in_channel", (8,))
    assert str(caught.value) == (
        "in_channel divides dimension 1, and layer.weight has shape [8]; write out_channel"
    )


def test_out_channel_of_a_scalar_is_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("out_channel", ())
    assert str(caught.value) == (
        "out_channel divides dimension 0, and layer.weight has shape []; write default"
    )


def test_per_channel_of_a_linear_output_is_its_last_dimension(cut):
    assert cut("per_channel", (2, 5, 8), kind="output") == Blocks((-1, -1, 1))


def test_per_channel_behind_a_convolution_is_dimension_one(cut):
    blocks = cut("per_channel", (2, 8, 5, 5), kind="output", channel_dim=1)
    assert blocks == Blocks((-1, 1, -1, -1))


def test_per_channel_of_a_weight_is_its_output_channel(cut):
    assert cut("per_channel", (8, 4, 3, 3)) == Blocks((1, -1, -1, -1))


def test_per_channel_of_a_transposed_weight_is_dimension_one(cut):
    assert cut("per_channel", (4, 8, 3, 3), output_dim=1) == Blocks((-1, 1, -1, -1))


def test_per_channel_of_a_transposed_convolutions_bias_is_each_element(cut):
    assert cut("per_channel", (8,), output_dim=1) == Blocks((1,))


def test_per_channel_of_a_batch_of_scalars_is_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("per_channel", (2,), kind="input")
    assert str(caught.value) == (
        "per_channel needs a channel dimension besides the batch, and layer._input_ has shape [2]; "
        "write default"
    )


def test_per_channel_of_a_scalar_is_an_error(cut):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        cut("per_channel", ())
    assert str(caught.value) == (
        "per_channel needs a dimension, and layer.weight is a scalar; write default"
    )
