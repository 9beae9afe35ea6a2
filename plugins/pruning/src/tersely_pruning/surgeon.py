"""Optimal brain surgery, column by column: mask weights and let the others compensate.

Everything here minimizes ||(W - W') X||^2 for the outputs of one linear layer, with the Hessian
H = X X^T of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ROWS = 256
"""Rows that are refined at once: few enough for their data to stay in cache."""


def mask_columns(
    weight: Tensor,
    factor: Tensor,
    choose: Callable[[Tensor], Tensor],
    *,
    is_alive: Tensor,
    block: int,
    run: int,
) -> tuple[Tensor, Tensor]:
    """Mask a weight column by column, updating the remaining columns.

    Args:
        weight: shape (rows, columns), float; read only.
        factor: the lower Cholesky factor of the inverse Hessian, shape (columns, columns).
        choose: called with scores of one run, shape (rows, columns of the run); returns bool,
            True = kept.
        is_alive: bool, shape (columns,); False for inputs that are always zero, whose weights score
            0.
        block: the number of columns after which all remaining columns are updated.
        run: the number of columns that are chosen at once, a divisor of ``block``.

    Returns:
        What is kept, bool, and the values, 0 where masked; both (rows, columns).
    """
    # Transposed, because columns are read and written as a whole; always a copy, since the weight
    # may already be a transposed view of the user's.
    values = weight.T.clone(memory_format=torch.contiguous_format)
    columns = len(values)
    kept = torch.empty(values.shape, dtype=torch.bool, device=values.device)
    errors = values.new_empty(min(block, columns), values.shape[1])
    inverse = factor.diagonal().reciprocal()[:, None]
    worth = inverse * is_alive[:, None]
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        for first in range(start, stop, run):
            last = min(first + run, stop)
            done = first - start
            if done:
                values[first:last].addmm_(factor[first:last, start:first], errors[:done], alpha=-1)
            scores = (values[first:last] * worth[first:last]).square_()
            kept[first:last] = choose(scores.T).T
            shares = ~kept[first:last] * inverse[first:last]
            for at in range(first, last):
                ahead = errors[done : at - start]
                if at > first:
                    values[at].addmv_(ahead.T, factor[at, first:at], alpha=-1)
                torch.mul(values[at], shares[at - first], out=errors[at - start])
        values[start:stop] *= kept[start:stop]
        values[stop:].addmm_(factor[stop:, start:stop], errors[: stop - start], alpha=-1)
    return kept.T.contiguous(), values.T.contiguous()


def refine(values: Tensor, weight: Tensor, hessian: Tensor, *, kept: Tensor, steps: int) -> Tensor:
    """Move the kept weights closer to their optimum for fixed masks.

    Conjugate gradients, scaled by the Hessian's diagonal, on every row at once.

    Args:
        values: shape (rows, columns), 0 where masked; changed in place.
        weight: the dense weight, shape (rows, columns).
        hessian: shape (columns, columns), symmetric.
        kept: bool, shape (rows, columns).
        steps: steps of conjugate gradients; each multiplies by the Hessian once.

    Returns:
        ``values``.
    """
    for some, dense, masks in zip(
        torch.split(values, _ROWS),
        torch.split(weight, _ROWS),
        torch.split(kept, _ROWS),
        strict=True,
    ):
        _refine(some, dense, hessian, kept=masks, steps=steps)
    return values


def _refine(values: Tensor, weight: Tensor, hessian: Tensor, *, kept: Tensor, steps: int) -> None:
    scale = kept / hessian.diagonal()
    # Only values of kept weights are defined: ``scale`` is 0 elsewhere.
    residual = (weight - values) @ hessian
    step, product, scratch = (torch.zeros_like(residual) for _ in range(3))
    before = torch.ones_like(residual[:, :1])
    tiny = torch.finfo(values.dtype).tiny
    for _ in range(steps):
        torch.mul(residual, scale, out=product)
        strength = torch.mul(residual, product, out=scratch).sum(1, keepdim=True)
        step.mul_(strength / before.clamp_min(tiny)).add_(product)
        torch.mm(step, hessian, out=product)
        along = torch.mul(step, product, out=scratch).sum(1, keepdim=True)
        length = strength / along.clamp_min_(tiny)
        values.addcmul_(step, length)
        residual.addcmul_(product, length, value=-1)
        before = strength
