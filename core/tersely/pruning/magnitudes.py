"""Ranking by the weights' own magnitude where nothing else ranks them (rule B10)."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely.arithmetic.blocks import (
    count_blocks,
    expand_blocks,
    reduce_blocks,
    resolve_size,
    sum_blocks,
)
from tersely.pruning.ranking import Ranked

_SMALL = 1e-30  # below whatever ranks other scopes and other targets


def magnitudes(ranked: Ranked) -> Tensor:
    """Return the sum of magnitudes of each block, so small that any real score is larger.

    Args:
        ranked: a parameter and its blocks.

    Returns:
        Shape (blocks along each dimension), float32 or float64, at most 1e-30.
    """
    tensor = ranked.tensor.detach()
    wide = torch.promote_types(tensor.dtype, torch.float32)
    found = sum_blocks(tensor.abs().to(wide), ranked.blocks.size)
    largest = found.amax() if found.numel() else found.sum()
    return found * (_SMALL / torch.where(largest > 0, largest, 1))


def ranked_by_magnitude(scores: Tensor, ranked: Ranked) -> tuple[Tensor, bool]:
    """Let magnitudes rank the blocks of every scope whose scores are all zero, or all NaN.

    Args:
        scores: one per block.
        ranked: the parameter and its blocks.

    Returns:
        The scores, and whether magnitudes decide somewhere.
    """
    nothing = (scores == 0) | scores.isnan()
    if not bool(nothing.any()):
        return scores, False
    size = resolve_size(ranked.blocks.size, ranked.shape)
    scope = resolve_size(ranked.blocks.scope or (-1,) * len(size), ranked.shape)
    within = tuple(outer // inner for outer, inner in zip(scope, size, strict=True))
    is_zero = reduce_blocks(scores == 0, within, torch.all)
    is_nan = reduce_blocks(scores.isnan(), within, torch.all)
    is_blank = expand_blocks(is_zero | is_nan, within, count_blocks(size, ranked.shape))
    own = magnitudes(ranked).to(scores.dtype)
    is_needed = bool((is_blank & (own > 0)).any())
    return (torch.where(is_blank, own, scores) if is_needed else scores), is_needed
