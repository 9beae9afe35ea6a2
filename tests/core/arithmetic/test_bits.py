"""Bool tensors packed to bits and back."""

import pytest
import torch
from messages.blocks import bytes_of_bools

from tersely.arithmetic.bits import pack_bits, unpack_bits


def test_the_first_element_is_the_lowest_bit():
    values = torch.tensor([True, False, True, True, False, False, False, False, False, True])
    assert pack_bits(values).tolist() == [1 + 4 + 8, 2]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (8,), (3, 3), (2, 4, 5)])
def test_what_was_packed_comes_back(shape):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(unpack_bits(pack_bits(values), shape), values)


def test_a_transposed_tensor_is_packed_in_its_own_order():
    values = torch.tensor([[True, False, False], [True, True, False]])
    assert torch.equal(unpack_bits(pack_bits(values.T), (3, 2)), values.T)


@pytest.mark.parametrize("bits", [torch.zeros(1, dtype=torch.uint8), torch.zeros(2)])
def test_bits_of_another_shape_are_refused(bits):
    with pytest.raises(ValueError, match=f"{bytes_of_bools(2)} \\[3, 3\\]"):
        unpack_bits(bits, (3, 3))
