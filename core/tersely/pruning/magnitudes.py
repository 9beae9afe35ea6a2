"""Ranks weights for which calibration observed nothing by their own magnitudes (rule B8.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely.arithmetic.blocks import expand_blocks, reduce_blocks, sum_blocks
from tersely.masking.budgets import bound_count, count_masked
from tersely.masking.member import Member
from tersely.masking.scopes import scope_in_blocks
from tersely.pruning.ranking import Ranked

_SMALL = 1e-30  # below whatever ranks other scopes and other targets
_RANK = 2  # a matrix has outputs and inputs


def magnitudes(ranked: Ranked) -> Tensor:
    """Return the sum of magnitudes of each block, so small that any real score is larger.

    Args:
        ranked: a parameter and its blocks.

    Returns:
        Shape (blocks along each dimension), float32 or float64, at most 1e-30.
    """
    tensor = ranked.ordered(ranked.tensor.detach())
    wide = torch.promote_types(tensor.dtype, torch.float32)
    found = sum_blocks(tensor.abs().to(wide), ranked.blocks.size)
    largest = found.amax() if found.numel() else found.sum()
    return found * (_SMALL / torch.where(largest > 0, largest, 1))


def magnitudes_by_output(ranked: Ranked, member: Member, *, output_dim: int) -> Tensor:
    """Return magnitudes that mask the same share of each output's weights.

    Nothing is known about the outputs, so none is emptied because its weights are small.

    Args:
        ranked: a weight and its blocks.
        member: the weight's limits as the budget code sees them, with any importance.
        output_dim: the dimension that counts outputs.

    Returns:
        As `magnitudes` does, and up to 5e-30; where single elements share one budget, the lowest of
        each output come before all others, as many of them as the ratio means in one output, and
        after these the next one of each.
    """
    own = magnitudes(ranked)
    blocks = ranked.blocks
    is_by_element = set(blocks.size) == {1} and blocks.scope is None
    if member.ratio is None or not is_by_element or own.ndim < _RANK:
        return own
    by_output = own.movedim(output_dim, 0)
    rows = by_output.flatten(1)
    order, due = rows.argsort(dim=1, stable=True), _due(member, rows.shape[1])
    turn = torch.full_like(rows, 2, dtype=torch.float64).scatter_(1, order[:, :due], 0)
    # What rounding leaves over is less than one for each output.
    turn.scatter_(1, order[:, due : due + 1], 1)
    # In double precision, which keeps the order of small ones relative to the step.
    return own.double() + turn.reshape(by_output.shape).movedim(0, output_dim) * (2 * _SMALL)


def _due(member: Member, total: int) -> int:
    count = count_masked(member.ratio or 0, total)
    return bound_count(count, total, minimum=member.minimum, maximum=member.maximum)


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
    within = scope_in_blocks(ranked.blocks, ranked.shape) or (-1,) * scores.ndim
    is_zero = reduce_blocks(scores == 0, within, torch.all)
    is_nan = reduce_blocks(scores.isnan(), within, torch.all)
    is_blank = expand_blocks(is_zero | is_nan, within, scores.shape)
    own = magnitudes(ranked).to(scores.dtype)
    is_needed = bool((is_blank & (own > 0)).any())
    return (torch.where(is_blank, own, scores) if is_needed else scores), is_needed
