"""The rule of scaled dot product attention: heads are removed whole on all sides."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace, settle
from tersely.shrinking.graph.labels import Layer, are_alike, reduced, varying
from tersely.shrinking.graph.program import argument, given, operator_name, shape_of
from tersely.shrinking.operators.pointwise import tie_operands
from tersely.shrinking.operators.reading import held_by_all_keys, sum_where_zero
from tersely.shrinking.operators.repeating import copied


def trace_attention(trace: Trace, node: Node) -> Flow:
    """Remove a head of query, key and value if all of the head's output is removed."""
    if not trace.has_values:
        return _tied(trace, node)
    labels = trace.labels
    for one in given(node)[1:3]:
        _follow_repeated(trace, one)
    query, key, value = (trace.tensor(one) for one in given(node)[:3])
    ndim = query.ndim
    shape = shape_of(node)
    repeats = query.shape[-3] // key.shape[-3] if node.kwargs.get("enable_gqa") else 1
    heads = []
    is_scaled = (
        node.kwargs.get("scale") is not None
    )  # otherwise the default scale depends on the width
    if is_scaled:
        sum_where_zero(trace, query, key, -1, "attention sums over it")
    for flow, inner in ((query, ndim - 1), (key, ndim - 1)):
        layers: list[Layer] = []
        for layer in flow.layers:
            if varying(layer) == (inner,) and is_scaled:
                continue
            if varying(layer) == (inner,) or (flow is not query and varying(layer) == (ndim - 2,)):
                labels.pin(layer, "attention sums over it")
                continue
            # Keys of several origins, such as an appended one, lose the same heads.
            tied = labels.tie_along(layer, [inner] if flow is query else [ndim - 2, inner])
            layers.append(labels.whole(tied, [ndim - 2]))
        layers = [copied(trace, one, -3, repeats if flow is key else 1) for one in layers]
        heads.append(Flow(_heads(flow, query), tuple(layers)))
    outs = []
    for layer in value.layers:
        if varying(layer) == (ndim - 2,):
            labels.pin(layer, "attention sums over it")
            continue
        tied = labels.tie_along(layer, [ndim - 2])
        outs.append(copied(trace, tied, -3, repeats) if repeats > 1 else tied)
    covered = [x for x in outs if len(varying(x)) > 1]
    over = tuple(labels.whole(x, [ndim - 1]) for x in outs if varying(x) != (ndim - 1,))
    heads.append(Flow(_heads(value, query), over))
    mask = trace.flow(argument(node, 3, "attn_mask"))
    if mask is not None:
        heads.append(_masking(trace, mask))
    met = tie_operands(trace, heads, (*query.shape[:-2], 1, 1), "attention")
    rows = [x for x in query.layers if varying(x) == (ndim - 2,)]
    return Flow(
        shape, (*outs, *rows, *(() if covered else met)), _constant(trace, node, value, repeats)
    )


def _heads(flow: Flow, query: Flow) -> tuple[int, ...]:
    """The shape in which heads meet; one that serves all queries serves as many as stay."""
    if flow.ndim >= _WITH_HEADS and flow.shape[-3] == 1:
        return (*flow.shape[:-2], 1, 1)
    return (*query.shape[:-2], 1, 1)


_WITH_HEADS = 3
"""The number of dimensions from which the third last is that of heads."""


def _follow_repeated(trace: Trace, node: Node) -> None:
    """Let the keys or values of one head that were repeated for all queries lose repetitions."""
    if len(shape_of(node)) < _WITH_HEADS:
        return
    path = [node]
    while operator_name(path[-1]) in _KEEPING and len(path[-1].users) == 1:
        path.append(given(path[-1])[0])
    last = path[-1]
    if operator_name(last) != "expand" or len(last.users) > 1 or trace.flow(last) is None:
        return
    before, after = trace.tensor(given(last)[0]).shape, shape_of(last)
    if len(before) != len(after):
        return
    repeated = [dim for dim, size in enumerate(after) if size > before[dim]]
    if [after[dim] for dim in repeated] != [shape_of(node)[-3]]:
        return
    layer = trace.labels.new([after[d] if d in repeated else 1 for d in range(len(after))])
    for one in reversed(path):
        if one is not last:
            layer = reduced(layer.expand(shape_of(given(one)[0])).reshape(shape_of(one)))
        flow = trace.tensor(one)
        trace.flows[one] = attrs.evolve(flow, layers=(*flow.layers, layer))


_KEEPING = frozenset(["view", "reshape", "_unsafe_view", "clone", "contiguous"])
"""Operators that keep the order of elements."""


def _tied(trace: Trace, node: Node) -> Flow:
    """Tie the channels of query, key and value head by head, or whole heads."""
    query, key, value = (trace.tensor(one) for one in given(node)[:3])
    repeats = query.shape[-3] // key.shape[-3] if node.kwargs.get("enable_gqa") else 1
    channels = [
        [_repeated(layer, times) for layer in flow.layers if layer.shape[-2] == 1]
        for flow, times in ((query, 1), (key, repeats), (value, repeats))
    ]
    met = [trace.labels.joined(layers) for layers in channels]
    for other in met[1:]:
        if met[0] is not None and other is not None and are_alike(met[0], other):
            trace.labels.tie(met[0], other)
    out = met[2]
    return Flow(shape_of(node), () if out is None else (out,))


def _masking(trace: Trace, mask: Flow) -> Flow:
    """A mask, or a bias for each head, as it meets the heads."""
    kept = []
    for layer in mask.layers:
        if max(layer.shape[-2:]) > 1:
            trace.labels.pin(layer, "attention sums over it")
        else:
            kept.append(layer)
    return Flow((*mask.shape[:-2], 1, 1), tuple(kept))


def _repeated(layer: Layer, repeats: int) -> Layer:
    """A layer of key or value heads, each serving several query heads in a row."""
    if repeats == 1 or layer.shape[-3] == 1:
        return layer
    return layer.repeat_interleave(repeats, layer.ndim - 3)


def _constant(trace: Trace, node: Node, value: Flow, repeats: int) -> Tensor | None:
    """Attention returns a value that is the same for all keys, and zero under any mask."""
    held = held_by_all_keys(value.constant)
    if held is None:
        return None
    # In training, dropout may remove some of the weights.
    if argument(node, 3, "attn_mask") is not None or trace.is_training:
        held = torch.where(held == 0, 0.0, torch.nan)
    if repeats > 1 and held.shape[-3] > 1:
        held = held.repeat_interleave(repeats, held.ndim - 3)
    return settle(held)
