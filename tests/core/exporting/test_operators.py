"""Reading and making integers with the operators of an exported program."""

import pytest
import torch

from tersely.arithmetic.affine import dequantize, quantize
from tersely.arithmetic.qparams import QParams
from tersely.exporting import operators

INT8 = (-127, 127)


def names_of(function, *values):
    graph = torch.fx.experimental.proxy_tensor.make_fx(function)(*values).graph
    return [
        str(node.target).removeprefix("quantized_decomposed.")
        for node in graph.nodes
        if "quantized_decomposed" in str(node.target)
    ]


def read(size, scale, zero_point):
    return lambda integers: operators.dequantize(
        integers, scale, zero_point, size=size, limits=INT8, out=torch.float32
    )


def test_one_block_is_read_by_numbers():
    integers = torch.tensor([[-2, 0, 3]], dtype=torch.int8)

    function = read((-1, -1), 0.5, 1)

    assert function(integers).tolist() == [[-1.5, -0.5, 1.0]]
    assert names_of(function, integers) == ["dequantize_per_tensor.default"]


def test_each_column_as_a_block_is_read_by_channel():
    integers = torch.tensor([[1, 2], [3, 4]], dtype=torch.int8)

    function = read((-1, 1), torch.tensor([1.0, 10.0]), torch.tensor([0, 1]))

    assert function(integers).tolist() == [[1.0, 10.0], [3.0, 30.0]]
    assert names_of(function, integers) == ["dequantize_per_channel.default"]


def test_runs_along_the_last_dimension_are_read_by_group():
    integers = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=torch.int8)

    function = read((1, 2), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.zeros(4, dtype=torch.long))

    assert function(integers).tolist() == [[1, 2, 6, 8], [15, 18, 28, 32]]
    assert names_of(function, integers) == ["dequantize_per_channel_group.default"]


def test_runs_in_more_than_two_dimensions_keep_their_shape():
    integers = torch.ones(2, 1, 4, dtype=torch.int8)

    found = read((1, 1, 2), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.zeros(4).long())(integers)

    assert found.tolist() == [[[1, 1, 2, 2]], [[3, 3, 4, 4]]]


def test_blocks_of_any_shape_are_read_by_rows():
    integers = torch.ones(4, 4, dtype=torch.int8)

    found = read((2, 2), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.zeros(4).long())(integers)

    assert found.tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2


@pytest.mark.parametrize("size", [(-1, -1), (1, -1), (-1, 1), (1, 2), (2, 2), (2, -1)])
def test_values_are_those_of_the_arithmetic(size):
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    blocks = tuple(
        length if one == 1 else 1 if one == -1 else length // one
        for one, length in zip(size, (4, 6), strict=True)
    )
    scale = torch.rand(blocks, generator=torch.Generator().manual_seed(1)) + 0.01
    zero_point = torch.arange(scale.numel()).reshape(blocks) % 5
    qparams = QParams(
        scale=scale,
        zero_point=zero_point,
        quant_min=-127,
        quant_max=127,
        dtype="int8",
        scheme="affine",
        block_size=size,
    )
    integers = quantize(values, qparams)
    is_one = scale.numel() == 1

    found = operators.dequantize(
        integers,
        float(scale) if is_one else scale.reshape(-1),
        int(zero_point) if is_one else zero_point.reshape(-1),
        size=size,
        limits=INT8,
        out=torch.float32,
    )

    assert torch.equal(found, dequantize(integers, qparams))


def test_tokens_are_rounded_by_their_own_scales():
    values = torch.tensor([[1.0, -2.0], [0.1, 0.26]])

    found = operators.quantize_dequantize_tokens(
        values, torch.tensor([[1.0], [0.1]]), torch.zeros(2, 1).int(), limits=INT8
    )

    assert torch.allclose(found, torch.tensor([[1.0, -2.0], [0.1, 0.3]]))


def test_values_beyond_the_range_are_clamped():
    values = torch.tensor([300.0, -300.0])

    found = operators.quantize_dequantize(values, 1.0, 0, size=(-1,), limits=INT8)

    assert found.tolist() == [127.0, -127.0]
