"""Checks what a pruner returned against what it was asked for, and names it where it differs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tersely.arithmetic.blocks import count_blocks, reduce_blocks, to_blocks
from tersely.arithmetic.numbered import uneven_sizes
from tersely.contracts.pruner import PruningTarget, Solution
from tersely.engine.isolation.foreign import wrong_return
from tersely.errors import CalibrationError
from tersely.masking.budgets import bound_count, count_masked
from tersely.masking.member import Member


def check_scores(scores: object, target: PruningTarget) -> Tensor:
    """Return what a pruner returned as scores.

    Args:
        scores: what it returned.
        target: what it was asked about.

    Raises:
        PluginError: they are not a float tensor.
    """
    if not isinstance(scores, Tensor):
        raise wrong_return(target.plan, f"a {type(scores).__name__}", "a tensor of scores")
    if not scores.is_floating_point():
        raise wrong_return(target.plan, f"scores of dtype {scores.dtype}", "floats")
    return scores


def check_order(order: object, target: PruningTarget) -> Tensor:
    """Return what a pruner returned as the order of input channels.

    Args:
        order: what it returned.
        target: what it was asked about.

    Raises:
        PluginError: it does not name each input channel once.
    """
    inputs = target.tensor.shape[target.plan.input_dim]
    if not isinstance(order, Tensor):
        raise wrong_return(
            target.plan, f"a {type(order).__name__}", "the order of its inputs, int64"
        )
    if order.dtype != torch.int64 or order.shape != (inputs,):
        found = f"an order of dtype {order.dtype} and shape {list(order.shape)}"
        raise wrong_return(target.plan, found, f"torch.int64 of shape [{inputs}]")
    if not torch.equal(order.sort().values, torch.arange(inputs, device=order.device)):
        raise wrong_return(
            target.plan, "an order that repeats inputs", f"each of 0 to {inputs - 1} once"
        )
    return order


def check_solution(solution: object, target: PruningTarget, member: Member) -> Solution:
    """Return what a pruner found, of the target's shape, and within the budget.

    Args:
        solution: what it returned.
        target: what it was asked about.
        member: the target's limits as the budget code sees them.

    Raises:
        PluginError: it is not a solution, has other shapes or types, or its mask does not meet the
            budget, the pattern or the blocks that the config asks for.
        CalibrationError: the new values are not finite.
    """
    if not isinstance(solution, Solution):
        raise wrong_return(target.plan, f"a {type(solution).__name__}", "a tersely.Solution")
    shape = target.tensor.shape
    if solution.kept.shape != shape or solution.tensor.shape != shape:
        raise wrong_return(
            target.plan,
            f"a mask of shape {list(solution.kept.shape)} and values of shape "
            f"{list(solution.tensor.shape)}",
            f"{list(shape)}",
        )
    if solution.kept.dtype != torch.bool or not solution.tensor.is_floating_point():
        raise wrong_return(
            target.plan,
            f"a mask of dtype {solution.kept.dtype} and values of dtype {solution.tensor.dtype}",
            "torch.bool and floats",
        )
    if not bool(solution.tensor.sum().isfinite()):
        raise CalibrationError(
            f"{target.name}: {target.plan.algorithm} found values that are not finite; calibrate "
            "with more batches or raise its damping",
            **target.plan.place,
        )
    kept = solution.kept
    if solution.order is not None:
        if target.plan.expert is not None:
            raise wrong_return(target.plan, "an order of inputs", "none for one of several experts")
        order = check_order(solution.order, target)
        kept = kept.index_select(target.plan.input_dim, order.to(kept.device))
    _check_budget(kept, target, member)
    return solution


def _check_budget(kept: Tensor, target: PruningTarget, member: Member) -> None:
    decisions = _decisions(kept, target, member)
    if member.blocks.scope is not None and member.blocks.keep is not None:
        _check_pattern(decisions, target, member, keep=member.blocks.keep)
    elif member.ratio is None:
        return
    elif member.blocks.scope is not None:
        _check_scopes(decisions, target, member)
    else:
        _check_total(decisions, target, member)


def _decisions(kept: Tensor, target: PruningTarget, member: Member) -> Tensor:
    size = member.blocks.size
    decisions = reduce_blocks(kept, size, torch.any)
    if not torch.equal(decisions, reduce_blocks(kept, size, torch.all)):
        is_numbered = member.blocks.index is not None
        what = "numbered block" if is_numbered else f"of {list(size)} elements"
        raise wrong_return(
            target.plan, "a mask that cuts through blocks", f"each {what} kept or masked as a whole"
        )
    return decisions


def _check_pattern(decisions: Tensor, target: PruningTarget, member: Member, *, keep: int) -> None:
    counts = _counts_in_scopes(decisions, member)
    if not bool((counts == keep).all()):
        found = int(counts[counts != keep][0])
        raise wrong_return(
            target.plan,
            f"a mask that keeps {found} of some {_scope_size(member)} neighbours",
            f"{keep} in each",
        )


def _check_scopes(decisions: Tensor, target: PruningTarget, member: Member) -> None:
    total = _scope_size(member)
    due = _due(member, total)
    left = total - _counts_in_scopes(decisions, member)
    if not bool((left == due).all()):
        wrong = f"a mask that leaves out {int(left[left != due][0])} of some {total} blocks"
        raise wrong_return(target.plan, wrong, f"{due} in each scope, as the config asks")


def _check_total(decisions: Tensor, target: PruningTarget, member: Member) -> None:
    sizes = uneven_sizes(member.blocks.size)
    if sizes is not None:
        # Which blocks fit into the budget depends on the algorithm's own order of them.
        elements, whole = int(sizes[~decisions.cpu()].sum()), int(sizes.sum())
        due = _due(member, whole)
        if elements > due:
            left_out = f"a mask that leaves out {elements} of {whole} elements"
            raise wrong_return(target.plan, left_out, f"no more than {due}, as the config asks")
        return
    masked, total = int((~decisions).sum()), decisions.numel()
    due = _due(member, total)
    if masked != due:
        left_out = f"a mask that leaves out {masked} of {total} blocks"
        raise wrong_return(target.plan, left_out, f"{due}, as the config asks")


def _due(member: Member, total: int) -> int:
    """Return how many of some blocks or elements the target's ratio and bounds mask."""
    assert member.ratio is not None  # the caller has checked
    count = count_masked(member.ratio, total)
    return bound_count(count, total, minimum=member.minimum, maximum=member.maximum)


def _counts_in_scopes(decisions: Tensor, member: Member) -> Tensor:
    # In units of blocks: how many of them one scope has along each dimension.
    scope = member.blocks.scope or ()
    inner = count_blocks(member.blocks.size, member.shape)
    outer = count_blocks(scope, member.shape)
    size = [every // each for every, each in zip(inner, outer, strict=True)]
    return to_blocks(decisions, size).sum(-1)


def _scope_size(member: Member) -> int:
    scope = math.prod(count_blocks(member.blocks.scope or (), member.shape))
    return math.prod(count_blocks(member.blocks.size, member.shape)) // scope
