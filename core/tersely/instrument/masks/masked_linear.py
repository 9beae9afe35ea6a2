"""A linear layer whose weight is masked block by block, while the block is in the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tersely.instrument.modules.eager import are_plain, is_eager

SMALLEST = 1 << 20
"""Elements of a weight from which on blocks pay; smaller ones are in the cache as a whole."""

LARGEST_BATCH = 64
"""Rows of an input up to which blocks pay; with more, the products cost more than the masks."""

BLOCK = 1 << 19
"""Elements of a block: about what a core's own cache holds."""

Gradients = tuple[Tensor | None, Tensor | None, None, Tensor | None]


def multiply(value: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    """Return value @ (weight * mask).T + bias.

    Sums may be taken in another order than PyTorch's, so results can differ in the last digits.
    Elements that are masked get a gradient of exactly zero.

    Args:
        value: shape (..., inputs), float.
        weight: shape (outputs, inputs), float; not modified.
        mask: shape (outputs, inputs), in the weight's dtype: 1 kept and 0 masked.
        bias: shape (outputs,), or None.
    """
    result: Tensor = _MaskedLinear.apply(value, weight, mask, bias)  # type: ignore[no-untyped-call]  # of torch
    return result


class _MaskedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None
    ) -> Tensor:
        by_value, by_weight = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            value if by_weight else None,
            weight if by_value else None,
            mask if by_value or by_weight else None,
        )
        result = value.new_empty(*value.shape[:-1], len(weight))
        rows = value.reshape(-1, value.shape[-1])
        _multiply(rows, weight, mask, bias, into=result.view(len(rows), len(weight)))
        # Not a view: what follows may work in place, as it may on what PyTorch's layer returns.
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        (gradient,) = gradients
        value, weight, mask = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        values = None if value is None else value.reshape(-1, value.shape[-1])
        if mask is None:  # only the bias learns
            return None, None, None, rows.sum(0) if wanted[3] else None
        is_alone = not torch.is_grad_enabled() and is_eager() and are_plain(rows)
        by_value, by_weight = (_by_blocks if is_alone else _at_once)(rows, values, weight, mask)
        if by_value is not None:
            by_value = by_value.reshape(*gradient.shape[:-1], by_value.shape[-1])
        return by_value, by_weight, None, rows.sum(0) if wanted[3] else None


def _block_rows(batch: int, inputs: int) -> int:
    """Return how many outputs are computed at a time."""
    # A product reads its other factor again for each block, so that one must not be larger.
    return max(BLOCK // inputs, batch)


def _multiply(
    rows: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, *, into: Tensor
) -> None:
    outputs, inputs = weight.shape
    step = _block_rows(len(rows), inputs)
    # Contiguous factors: a product of a small block is one and a half times as fast with them.
    columns, result = rows.t().contiguous(), rows.new_empty(outputs, len(rows))
    block = weight.new_empty(step, inputs)
    for start in range(0, outputs, step):
        part = slice(start, start + step)
        kept = mask[part]
        torch.mm(torch.mul(weight[part], kept, out=block[: len(kept)]), columns, out=result[part])
    if bias is None:
        into.copy_(result.t())
    else:
        torch.add(result.t(), bias, out=into)


def _by_blocks(
    gradient: Tensor, value: Tensor | None, weight: Tensor | None, mask: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients by the value, which needs the weight, and by the weight."""
    inputs = mask.shape[1]
    step = _block_rows(len(gradient), inputs)
    by_value = None if weight is None else gradient.new_zeros(len(gradient), inputs)
    by_weight = None if value is None else torch.empty_like(mask)
    block, columns = mask.new_empty(step, inputs), gradient.t().contiguous()
    for start in range(0, len(mask), step):
        part = slice(start, start + step)
        kept = mask[part]
        if value is not None and by_weight is not None:
            # Ours until it is returned, so it is masked where it is.
            torch.mm(columns[part], value, out=by_weight[part]).mul_(kept)
        if weight is not None and by_value is not None:
            masked = torch.mul(weight[part], kept, out=block[: len(kept)])
            by_value.addmm_(gradient[:, part], masked)
    return by_value, by_weight


def _at_once(
    gradient: Tensor, value: Tensor | None, weight: Tensor | None, mask: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return the same by operators that can be differentiated once more, and vectorized."""
    by_value = None if weight is None else gradient.mm(weight * mask)
    by_weight = None if value is None else gradient.t().mm(value) * mask
    return by_value, by_weight
