"""Scales chosen for the least error instead of the whole range."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import tersely
from tersely_quantization.solving.weighed import output_errors

FACTORS = tuple(1 - step / 20 for step in range(11))
"""The shares of the range to try, from the whole to half."""


def whole_range(tensor: Tensor, target: tersely.QuantizationTarget) -> tersely.QParams:
    """Return scale and zero point for the smallest and the largest value of every block.

    Args:
        tensor: the values to quantize, the target's shape.
        target: the target.
    """
    return tersely.choose_qparams(*tersely.block_range(tensor, target.blocks.size), target)


def search_by_square(
    tensor: Tensor, target: tersely.QuantizationTarget, *, importance: Tensor
) -> tersely.QParams:
    """Return scale and zero point with the least squared error, block by block.

    Args:
        tensor: the values to quantize, the target's shape.
        target: the target.
        importance: the weight of each value's squared error, a shape that broadcasts to the
            tensor's.
    """

    def errors(change: Tensor) -> Tensor:
        return tersely.sum_blocks(change.square_().mul_(importance), target.blocks.size)

    return _search(tensor, target, errors)


def search_by_output(
    tensor: Tensor, target: tersely.QuantizationTarget, *, layout: tersely.Layout, grams: Tensor
) -> tersely.QParams:
    """Return scale and zero point with the least output error, block by block.

    Each block is judged by its own share of the output error, as if all others were exact.

    Args:
        tensor: the values to quantize, the target's shape.
        target: the target.
        layout: how the target is arranged as matrices.
        grams: products of their inputs, shape (groups, columns, columns), symmetric.
    """
    counts = tersely.count_blocks(target.blocks.size, tuple(tensor.shape))
    numbers = torch.arange(math.prod(counts), device=tensor.device).reshape(counts)
    owners = tersely.to_matrices(
        tersely.expand_blocks(numbers, target.blocks.size, tuple(tensor.shape)), layout
    )

    def errors(change: Tensor) -> Tensor:
        total = tensor.new_zeros(numbers.numel())
        matrices = tersely.to_matrices(change, layout)
        for matrix, gram, owner in zip(matrices, grams, owners, strict=True):
            # Blocks have the same columns in all rows.
            for first in owner[0].unique().tolist():
                columns = (owner[0] == first).nonzero().flatten()
                found = output_errors(matrix[:, columns], gram[columns][:, columns])
                total.index_add_(0, owner[:, columns[0]], found)
        return total.reshape(counts)

    return _search(tensor, target, errors)


def _search(
    tensor: Tensor, target: tersely.QuantizationTarget, errors: Callable[[Tensor], Tensor]
) -> tersely.QParams:
    """Try the range and smaller ones, which clamp large values and have finer steps."""
    low, high = tersely.block_range(tensor, target.blocks.size)
    best = tersely.choose_qparams(low, high, target)
    least = torch.full_like(best.scale, torch.inf)
    for factor in FACTORS:
        qparams = tersely.choose_qparams(low * factor, high * factor, target)
        change = tersely.fake_quantize(tensor, qparams).sub_(tensor)
        error = errors(change).reshape(least.shape).to(least.dtype)
        is_better = error < least
        least = torch.where(is_better, error, least)
        best = best.evolve(
            scale=torch.where(is_better, qparams.scale, best.scale),
            zero_point=torch.where(is_better, qparams.zero_point, best.zero_point),
        )
    return best
