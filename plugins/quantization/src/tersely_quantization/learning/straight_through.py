"""Straight-through gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def straight_through(surrogate: Tensor, values: Tensor) -> Tensor:
    """Return values unchanged, with the gradient of another tensor.

    Args:
        surrogate: receives the whole gradient.
        values: the same shape; receives none.

    Returns:
        A copy of ``values``, bit for bit.
    """
    result: Tensor = _StraightThrough.apply(surrogate, values)  # type: ignore[no-untyped-call]  # torch has no types here
    return result


def guarded(raw: Tensor, chosen: Tensor, *, low: float, high: float) -> Tensor:
    """Return a learned tensor clamped to usable values; gradients pass unchanged.

    Args:
        raw: the learned tensor, with any values that an optimizer may produce, including NaN and
            infinity.
        chosen: ``raw``'s shape; replaces NaN.
        low: the smallest usable value.
        high: the largest usable value.

    Returns:
        ``raw``'s shape and dtype, in [low, high].
    """
    with torch.no_grad():
        usable = torch.where(raw.isnan(), chosen.to(raw.dtype), raw).clamp(low, high)
    return straight_through(raw, usable)


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(surrogate: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
