"""Masking with a straight-through gradient: scores learn as if they were the mask itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tersely_pruning.per_block import sum_per_block


def mask_straight_through(value: Tensor, mask: Tensor | None, scores: Tensor) -> Tensor:
    """Return value * mask, with the gradient of value * scores for the scores.

    Args:
        value: any shape, float.
        mask: a shape that broadcasts to it, or None for all ones.
        scores: shape (blocks along each dimension), float; their values are not used.

    Returns:
        The value's shape and dtype. Its gradient reaches ``value`` through the mask, and every
        score as the sum over its block of gradient * value, masked or not.
    """
    result: Tensor = _StraightThrough.apply(value, mask, scores)  # type: ignore[no-untyped-call]  # torch's
    return result


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, mask: Tensor | None, scores: Tensor) -> Tensor:
        return value.view_as(value) if mask is None else value * mask

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor | None, Tensor], output: Tensor
    ) -> None:
        value, mask, scores = inputs
        ctx.save_for_backward(value, mask)
        ctx.size = _block_size(value.shape, scores.shape)
        ctx.dtype = scores.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        value, mask = ctx.saved_tensors
        for_value = for_scores = None
        if ctx.needs_input_grad[0]:
            for_value = gradient if mask is None else gradient * mask
        if ctx.needs_input_grad[2]:
            dense = gradient.to_dense() if gradient.is_sparse else gradient  # of an embedding
            for_scores = sum_per_block(dense * value, ctx.size).to(ctx.dtype)
        return for_value, None, for_scores


def _block_size(shape: Sequence[int], counts: Sequence[int]) -> tuple[int, ...]:
    return tuple(length // max(count, 1) for length, count in zip(shape, counts, strict=True))
