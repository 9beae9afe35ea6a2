"""Rounding to nearest by the range that there is."""

import torch

import tersely


def test_the_range_is_mapped_onto_the_integers(linear_target):
    target = linear_target([[-3.0, 12.0]], dtype="uint4", scheme="affine")
    low, high = tersely.block_range(target.tensor, (1, -1))

    qparams = tersely.registry().quantizers["rtn"]().choose(low, high, target)

    # 15 / 15, and zero three steps above the lowest
    assert qparams.scale.tolist() == [[1.0]]
    assert qparams.zero_point.tolist() == [[3]]
    assert qparams.zero_point.dtype == torch.int32
