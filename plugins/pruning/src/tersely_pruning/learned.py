"""Learned values of blocks: initial values, and means over targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import tersely
from tersely_pruning.per_block import block_counts, score_dtype


def initial_values(target: tersely.PruningTarget, value: float) -> Tensor:
    """Return one value per block to learn from.

    Args:
        target: the target, whose tensor may be on the meta device.
        value: the initial value of all blocks.

    Returns:
        Shape (blocks along each dimension); float32, or float64 if the tensor is, because narrower
        types lose an optimizer's steps. On the CPU for a tensor on the meta device, since learned
        values need memory.
    """
    device = torch.device("cpu") if target.tensor.is_meta else target.tensor.device
    return torch.full(block_counts(target), value, dtype=score_dtype(target.tensor), device=device)


def mean_of(terms: Sequence[Tensor]) -> Tensor:
    """Return the mean of numbers that may be on several devices.

    Args:
        terms: 0-dim, float; without any, the mean is zero.

    Returns:
        0-dim, float, on the device of the first.
    """
    if not terms:
        return torch.zeros(())
    return torch.stack([term.to(terms[0].device) for term in terms]).mean()
