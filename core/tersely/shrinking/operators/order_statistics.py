"""Rules of order statistics, such as quantiles."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.program import given, operator_name, shape_of
from tersely.shrinking.operators.moving import without
from tersely.shrinking.operators.picking import beyond, same_along, values_of

RANKS: Mapping[str, int | None] = {
    "quantile": None,
    "nanquantile": None,
    "kthvalue": -1,
    "mode": -1,
    "aminmax": None,
}
"""Operators -> their default dimension; None for all dimensions."""


def trace_rank(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Select values at ranks along dimensions, all of which stay; of equal values, that value."""
    name = operator_name(node)
    x = trace.tensor(given(node)[0])
    names = [one.name for one in node.target._schema.arguments]  # type: ignore[union-attr]
    options = {**dict(zip(names, given(node), strict=False)), **node.kwargs}
    dim = options.get("dim", RANKS[name])
    dims = list(range(x.ndim)) if dim is None else [int(dim) % x.ndim]
    keep = bool(options.get("keepdim", False))
    ranks = options.get("q")
    lead = len(shape_of(ranks)) if isinstance(ranks, Node) else 0

    def placed(tensor: Tensor) -> Tensor:
        small = without(tensor, dims, keep=keep)
        return small.reshape((1,) * lead + tuple(small.shape))

    layers = tuple(placed(one) for one in beyond(trace, node, x, dims, f"{name} picks among them"))
    same = same_along(x, dims)
    constant = None if same is None else placed(same)
    values = values_of(node)
    if not isinstance(node.meta["val"], list | tuple):
        return Flow(tuple(values[0].shape), layers, constant)
    is_index = [not torch.is_floating_point(one) for one in values]
    return tuple(
        Flow(tuple(one.shape), layers, None if index else constant)
        for one, index in zip(values, is_index, strict=True)
    )
