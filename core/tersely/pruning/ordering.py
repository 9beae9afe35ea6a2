"""The order of input channels in which a target's blocks and scopes are counted (rule B1.10)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tersely.contracts.ordering import OrdersInputs
from tersely.contracts.pruner import PruningTarget
from tersely.engine.isolation.foreign import ForeignCall
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionFileError
from tersely.pruning.ranking import Ranked
from tersely.pruning.returned_values import check_order


def order_of(pruner: object, ranked: Ranked, target: PruningTarget) -> Tensor | None:
    """Ask an algorithm for the order of a target's inputs, where it matters.

    Args:
        pruner: the algorithm.
        ranked: the target.
        target: the target as the algorithm sees it.

    Returns:
        Shape (inputs,), int64; None for their own order.

    Raises:
        PluginError: the algorithm failed, or returned something else than an order.
    """
    if not isinstance(pruner, OrdersInputs) or not _is_divided(ranked):
        return None
    algorithm = target.plan.algorithm
    failure = f"{algorithm} failed on {target.name}"
    with ForeignCall(failure, plugin=algorithm, target=target.plan.name):
        order = pruner.input_order(target)
    return meaningful(check_order(order, target))


def meaningful(order: Tensor | None) -> Tensor | None:
    """Return an order, or None where it changes nothing.

    Args:
        order: shape (inputs,), int64, or None.
    """
    if order is None or torch.equal(order, torch.arange(len(order), device=order.device)):
        return None
    return order


def _is_divided(ranked: Ranked) -> bool:
    plan, rank = ranked.bound.plan, len(ranked.shape)
    if ranked.bound.is_activation or plan.has_experts or plan.pruning.is_grouped:
        return False
    if plan.input_dim >= rank or ranked.blocks.index is not None:
        return False  # numbers are those of elements, in whatever order these are used
    scope = ranked.blocks.scope or (-1,) * rank
    lengths = (ranked.blocks.size[plan.input_dim], scope[plan.input_dim])
    return any(length not in (1, -1, ranked.shape[plan.input_dim]) for length in lengths)


def in_own_order(kept: Tensor, order: Tensor, dim: int) -> Tensor:
    """Return a mask with its input channels where they belong.

    Args:
        kept: a shape that broadcasts to the target's, its input channels in an order.
        order: shape (inputs,), int64.
        dim: the dimension of input channels.
    """
    if kept.shape[dim] != len(order):
        return kept  # one decision for all of them
    return kept.index_select(dim, order.argsort())


def check_saved_order(bound: BoundTarget, order: Tensor) -> None:
    """Refuse a saved order that does not fit its target.

    Args:
        bound: the target.
        order: what was saved.

    Raises:
        SessionFileError: it is not an order of the target's input channels.
    """
    shape, dim = bound.plan.shape or (), bound.plan.input_dim
    inputs = shape[dim] if dim < len(shape) else 0
    is_order = order.dtype == torch.int64 and order.shape == (inputs,)
    if not is_order or not torch.equal(order.sort().values.cpu(), torch.arange(inputs)):
        raise SessionFileError(
            f"the saved order of the inputs of {bound.plan.name} is not an order of its "
            f"{inputs} inputs",
            target=bound.plan.name,
        )


def described_orders(orders: Mapping[BoundTarget, Tensor]) -> list[str]:
    """Return what a report says of orders, as sentences.

    Args:
        orders: target -> the order of its inputs.
    """
    found = []
    for algorithm in dict.fromkeys(bound.plan.algorithm for bound in orders):
        names = [bound.plan.name for bound in orders if bound.plan.algorithm == algorithm]
        shown = ", ".join(names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        found.append(
            f"{algorithm} put the inputs of {len(names)} weights in another order, and their "
            f"granularity holds only in this order (session.input_orders()): {shown}{more}; a "
            "kernel for that granularity has to be given weights and inputs in this order"
        )
    return found


_SHOWN = 3
"""The number of weights that the warning names."""
