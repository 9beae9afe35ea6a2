"""Keys and values that several query heads share: each head reads a copy.

Of a tensor that is repeated ``(heads, queries of each)`` times, copies are removed one by one,
equally many for each head, or all of them with the head itself.
"""

from __future__ import annotations

import attrs
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace
from tersely.shrinking.graph.labels import Copies, Count, EqualParts, Grid, Layer, varying
from tersely.shrinking.graph.program import argument, given, operator_name, shape_of
from tersely.shrinking.operators.moving import trace_moving

_KEEPING = frozenset(["clone", "contiguous"])
_MERGING = frozenset(["view", "reshape", "_unsafe_view"])


@attrs.frozen
class Repetition:
    """A repetition by an operator.

    Attributes:
        layer: labels of the repeated tensor.
        dim: the dimension, not negative, of the source and of the result.
        times: the number of copies of each position.
        path: the operators that made the copies, where copies have a dimension of their own after
            that one; the last first.
    """

    layer: Layer
    dim: int
    times: int
    path: tuple[Node, ...] = ()


def is_copied(trace: Trace, node: Node) -> bool:
    """Tell whether an operator makes copies that may be removed one by one.

    Args:
        trace: the walk.
        node: the operator.
    """
    return trace.has_values and _repetition(trace, node) is not None


def trace_copied(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    """Label each copy of a position, in the order of the positions."""
    found = _repetition(trace, node)
    flow = trace_moving(trace, node)
    if found is None or not isinstance(flow, Flow):
        return flow
    copies = copied(trace, found.layer, found.dim, found.times)
    if len(varying(copies)) > 1:
        trace.labels.constrain(Grid(copies))
    others = tuple(one for one in flow.layers if one.shape[found.dim] == 1)
    if found.path:
        _count(trace, found, copies)
    return attrs.evolve(flow, layers=(*others, copies))


def copied(trace: Trace, layer: Layer, dim: int, times: int) -> Layer:
    """Return labels of copies that are adjacent along a dimension.

    Args:
        trace: the walk.
        layer: the labels of the copied tensor.
        dim: the dimension.
        times: the number of copies of each position.
    """
    dim %= layer.ndim
    if times == 1 or layer.shape[dim] == 1:
        return layer
    shape = tuple(layer.shape)
    fresh = trace.labels.new((*shape[: dim + 1], times, *shape[dim + 1 :]))
    each = fresh.movedim(dim + 1, -1).reshape(-1, times)
    trace.labels.constrain(Copies(layer.reshape(-1), each))
    result = fresh.flatten(dim, dim + 1)
    others = [d for d in varying(result) if d != dim]
    heads = trace.labels.whole(result, others).reshape(-1, times)
    trace.labels.constrain(EqualParts(heads))
    return result


def _count(trace: Trace, found: Repetition, copies: Layer) -> None:
    """Let the dimension of the copies lose as many positions as each head loses copies."""
    others = [d for d in varying(copies) if d != found.dim]
    heads = trace.labels.whole(copies, others).reshape(-1, found.times)
    ndim = trace.tensor(found.path[0]).ndim
    places = trace.labels.new([found.times if d == found.dim + 1 else 1 for d in range(ndim)])
    trace.labels.constrain(Count(places.reshape(-1), heads))
    for one in found.path:
        flow = trace.tensor(one)
        trace.flows[one] = attrs.evolve(flow, layers=(*flow.layers, places))
        trace.repeated[one] = found.dim + 1


def _repetition(trace: Trace, node: Node) -> Repetition | None:
    if operator_name(node) == "repeat_interleave":
        return _interleaved(trace, node)
    return _expanded(trace, node) if operator_name(node) in _MERGING else None


def _interleaved(trace: Trace, node: Node) -> Repetition | None:
    times, dim, x = argument(node, 1), argument(node, 2, "dim"), trace.flow(argument(node, 0))
    if not isinstance(times, int) or dim is None or x is None or times == 1:
        return None
    return _of(x, x.layers, int(dim) % x.ndim, times)


def _expanded(trace: Trace, node: Node) -> Repetition | None:
    """Copies that ``expand`` makes along a dimension that a view merges with the one before."""
    path = [given(node)[0]]
    while operator_name(path[-1]) in _KEEPING:
        path.append(given(path[-1])[0])
    last = path[-1]
    is_alone = all(len(one.users) == 1 for one in path)
    if operator_name(last) != "expand" or not is_alone or trace.flow(last) is None:
        return None
    before, after = trace.tensor(given(last)[0]).shape, shape_of(last)
    if len(before) != len(after) or len(shape_of(node)) != len(after) - 1:
        return None
    repeated = [d for d, size in enumerate(after) if size > before[d]]
    if len(repeated) != 1 or repeated[0] == 0:
        return None
    dim = repeated[0] - 1
    merged = (*after[:dim], after[dim] * after[dim + 1], *after[dim + 2 :])
    x = trace.tensor(last)
    if shape_of(node) != merged or any(one.shape[dim + 1] > 1 for one in x.layers):
        return None
    layers = tuple(one.squeeze(dim + 1) for one in x.layers)
    return _of(x, layers, dim, after[dim + 1], tuple(path))


def _of(
    x: Flow, layers: tuple[Layer, ...], dim: int, times: int, path: tuple[Node, ...] = ()
) -> Repetition | None:
    along = [one for one in layers if one.shape[dim] > 1]
    if x.read is not None or len(along) != 1:
        return None
    return Repetition(along[0], dim, times, path)
