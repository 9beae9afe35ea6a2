"""Blocks that differ in size: budgets count their elements, whichever blocks those are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tersely.masking.budgets import bound_count, count_masked
from tersely.masking.member import Ratio
from tersely.masking.rows import keep_highest


def count_within(values: Tensor, weights: Tensor, budget: int) -> int:
    """Return how many of the lowest values fit into a budget, up to the first that does not.

    Args:
        values: shape (blocks,), float; ties count at the lowest index first.
        weights: shape (blocks,), int64, positive: elements of each.
        budget: elements not to be exceeded.
    """
    ascending = weights[values.argsort(stable=True)]
    return int((ascending.cumsum(0) <= budget).count_nonzero())


def keep_by_elements(rows: Tensor, weights: Tensor, *, ratio: Ratio) -> Tensor:
    """Mask the lowest blocks of every row while they hold no more than a share of its elements.

    Args:
        rows: shape (rows, blocks), float, finite.
        weights: ``rows``'s shape, int64, positive: elements of each block.
        ratio: the share of elements.

    Returns:
        ``rows``'s shape, bool, True = kept.
    """
    return torch.cat(
        [
            keep_highest(row[None], count_within(row, each, count_masked(ratio, int(each.sum()))))
            for row, each in zip(rows, weights, strict=True)
        ]
    )


def bound_by_elements(
    kept: Tensor, rows: Tensor, weights: Tensor, *, minimum: Ratio, maximum: Ratio
) -> Tensor:
    """Decide again on rows of which more or fewer elements are masked than bounds allow.

    Args:
        kept: ``rows``'s shape, bool, True = kept.
        rows: shape (rows, blocks), float, finite.
        weights: ``rows``'s shape, int64, positive: elements of each block.
        minimum: the share of elements that is masked at least.
        maximum: the share of elements that is masked at most.

    Returns:
        ``rows``'s shape, bool, True = kept.
    """
    found = kept.clone()
    for index, (row, each) in enumerate(zip(rows, weights, strict=True)):
        total, masked = int(each.sum()), int(each[~kept[index]].sum())
        bounded = bound_count(masked, total, minimum=minimum, maximum=maximum)
        if bounded != masked:
            found[index] = keep_highest(row[None], count_within(row, each, bounded))[0]
    return found


def count_in_contest(values: Sequence[Tensor], weights: Sequence[Tensor], budget: int) -> list[int]:
    """Return how many of each tensor's lowest values one budget for all of them masks.

    Args:
        values: flat, of one float dtype; ties count in this order, then at the lowest index.
        weights: as long, int64, positive: elements of each.
        budget: elements not to be exceeded.
    """
    device = values[0].device
    everything = torch.cat([one.to(device) for one in values])
    order = everything.argsort(stable=True)
    ascending = torch.cat([one.to(device) for one in weights])[order]
    taken = torch.zeros_like(everything, dtype=torch.bool)
    taken[order] = ascending.cumsum(0) <= budget
    counts, start = [], 0
    for one in values:
        counts.append(int(taken[start : start + len(one)].count_nonzero()))
        start += len(one)
    return counts
