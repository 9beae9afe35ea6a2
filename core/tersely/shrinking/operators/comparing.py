"""Rules of operators that compare vectors: distances and cosine similarity."""

from __future__ import annotations

import torch
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace, aligned, settle
from tersely.shrinking.graph.labels import varying
from tersely.shrinking.graph.program import argument, given, operator_name, shape_of
from tersely.shrinking.operators.mixing import summed
from tersely.shrinking.operators.pointwise import tie_operands
from tersely.shrinking.operators.reading import values_along

PAIRS = frozenset(["pairwise_distance", "cosine_similarity"])
"""Operators that compare corresponding vectors."""


def trace_pair(trace: Trace, node: Node) -> Flow:
    """Remove a position where both vectors are zero, unless something is added there."""
    name = operator_name(node)
    flows = [trace.tensor(one) for one in given(node)[:2]]
    ndim = max(flow.ndim for flow in flows)
    sizes = [(1,) * (ndim - flow.ndim) + flow.shape for flow in flows]
    shape = tuple(max(both) for both in zip(*sizes, strict=True))
    is_distance = name == "pairwise_distance"
    dim = -1 if is_distance else int(argument(node, 2, "dim", 1))
    constant = None
    if trace.has_values and not (is_distance and argument(node, 3, "eps", 1e-6)):
        first, second = (aligned(flow.known(), len(shape)) == 0 for flow in flows)
        constant = settle(torch.where(first & second, 0.0, torch.nan).to(torch.float64))
    both = Flow(shape, tie_operands(trace, flows, shape, name), constant)
    total = summed(trace, both, [dim % len(shape)], name)
    is_kept = len(shape_of(node)) == len(shape)
    layers = [layer.unsqueeze(-1) for layer in total.layers] if is_kept else total.layers
    return Flow(shape_of(node), tuple(layers))


def trace_distances(trace: Trace, node: Node) -> Flow:
    """Compare all vectors of two sets: a position is removed if it is zero in all of them."""
    flows = [trace.tensor(one) for one in given(node)[:2]]
    sides, zero = [], torch.ones(flows[0].shape[-1], dtype=torch.bool)
    for flow in flows:
        last = flow.ndim - 1
        for layer in flow.layers:
            if varying(layer) != (last,):
                trace.labels.pin(layer, "cdist compares all of them")
        own = trace.labels.joined([x for x in flow.layers if varying(x) == (last,)])
        sides.append(zero.new_zeros(zero.shape).long() if own is None else own.reshape(-1))
        zero &= values_along(flow, last) == 0
    trace.labels.tie(*sides)
    trace.labels.pin(sides[0][~zero], "cdist sums over it")
    return Flow(shape_of(node))
