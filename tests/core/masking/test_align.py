import pytest
import torch
from messages.planning import EQUAL_LENGTHS

from tersely.arithmetic.blocks import Blocks, tensor_blocks
from tersely.errors import PlanError
from tersely.masking.align import align_kept, place_kept

WEIGHT = torch.tensor([[True, False, False], [False, False, False]])


def test_a_position_is_kept_when_anything_of_the_source_there_is():
    assert align_kept(WEIGHT, [0]).tolist() == [True, False]


def test_another_dimension_of_the_source_is_followed_alike():
    assert align_kept(WEIGHT, [1]).tolist() == [True, False, False]


def test_a_negative_dimension_counts_from_the_end():
    assert align_kept(WEIGHT, [-1]).tolist() == [True, False, False]


def test_a_vector_is_followed_element_by_element():
    assert align_kept(torch.tensor([True, False]), [0]).tolist() == [True, False]


def test_two_dimensions_come_in_the_order_they_are_named():
    assert torch.equal(align_kept(WEIGHT, [1, 0]), WEIGHT.T)


def test_a_mask_at_block_shape_is_followed_where_it_distinguishes():
    conv = torch.tensor([True, False, True]).reshape(3, 1, 1, 1)
    assert align_kept(conv, [0]).tolist() == [True, False, True]


def test_a_dimension_the_source_lacks_is_an_error():
    with pytest.raises(PlanError) as caught:
        align_kept(WEIGHT, [2], name="bn.weight")
    assert str(caught.value) == (
        "bn.weight: align.dims [2]: the source has 2 dimensions, so 2 is none of them; write 0 to 1"
    )


def test_a_dimension_a_vector_lacks_is_an_error():
    with pytest.raises(PlanError) as caught:
        align_kept(torch.tensor([True]), [1], name="fc.bias")
    assert str(caught.value) == (
        "fc.bias: align.dims [1]: the source has 1 dimension, so 1 is none of them; write 0"
    )


def test_a_dimension_named_twice_is_an_error():
    with pytest.raises(PlanError) as caught:
        align_kept(WEIGHT, [0, -2], name="fc.bias")
    assert str(caught.value) == "fc.bias: align.dims [0, -2] names a dimension twice"


def test_a_bias_takes_the_mask_as_it_is():
    kept = torch.tensor([True, False, True])
    assert torch.equal(place_kept(kept, (3,)), kept)


def test_the_bias_of_a_transposed_convolution_repeats_over_groups():
    # A weight of (4, 2, 3, 3) in 3 groups makes 6 output channels.
    assert place_kept(torch.tensor([True, False]), (6,), groups=3).tolist() == [True, False] * 3


def test_a_mask_of_another_length_is_an_error():
    with pytest.raises(PlanError) as caught:
        place_kept(torch.tensor([True, False, True]), (4,), name="fc.bias")
    assert str(caught.value) == (
        "fc.bias: the source of align has 3 positions along the aligned dimension, the target "
        f"has 4; {EQUAL_LENGTHS}"
    )


def test_a_mask_of_more_dimensions_than_the_target_is_an_error():
    with pytest.raises(PlanError) as caught:
        place_kept(WEIGHT, (2,), name="fc.bias")
    assert str(caught.value) == (
        "fc.bias: align.dims covers 2 dimensions, the target has 1 (shape [2])"
    )


def test_a_block_is_kept_when_anything_of_it_is():
    kept = torch.tensor([True, False, False, False])
    assert place_kept(kept, (4,), blocks=Blocks((2,))).tolist() == [True, False]


def test_blocks_of_the_target_get_a_decision_each():
    kept = torch.tensor([True, False])
    placed = place_kept(kept, (2, 6), blocks=Blocks((1, 3)))
    assert placed.tolist() == [[True, True], [False, False]]


def test_a_target_of_one_block_is_kept_when_anything_is():
    kept = torch.tensor([False, False, True])
    assert place_kept(kept, (3, 2), blocks=tensor_blocks(2)).tolist() == [[True]]
