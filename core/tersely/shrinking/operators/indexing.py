"""Rules of indexing with computed tensors: reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace, aligned, settle
from tersely.shrinking.graph.labels import Layer
from tersely.shrinking.graph.program import given, operator_name, shape_of
from tersely.shrinking.operators.picking import beyond, doubtful, same_along, zero_along
from tersely.shrinking.operators.pointwise import tie_operands

_WHOLE = (torch.int64, torch.int32)


def is_looked_up(node: Node) -> bool:
    """Tell whether an operator indexes adjacent dimensions with integers.

    Args:
        node: the operator.
    """
    if operator_name(node) == "index_select":
        return True
    return operator_name(node) == "index" and _indexed(node) is not None


def _indexed(node: Node) -> tuple[range, int] | None:
    """The dimensions of adjacent indices, and the number of dimensions that replace them."""
    places = [place for place, one in enumerate(given(node)[1]) if one is not None]
    indices = [given(node)[1][place].meta["val"] for place in places]
    along = range(places[0], places[-1] + 1)
    if len(along) != len(places):
        return None
    if len(indices) == 1 and indices[0].dtype == torch.bool:
        return range(places[0], places[0] + indices[0].ndim), 1
    if any(one.dtype not in _WHOLE for one in indices):
        return None
    return along, max(one.ndim for one in indices)


def trace_looked_up(trace: Trace, node: Node) -> Flow:
    """Index dimensions by indices computed from the input, such as rows for experts."""
    name, x = operator_name(node), trace.tensor(given(node)[0])
    if name == "index_select":
        first = int(given(node)[1]) % x.ndim
        dims, count, indices = range(first, first + 1), 1, [given(node)[2]]
    else:
        dims, count = _indexed(node) or (range(0), 0)
        indices = [one for one in given(node)[1] if one is not None]
    _doubt_indices(trace, indices, f"{name} picks with it")
    reason = f"{name} picks among them"
    layers = tuple(_put(one, dims, count) for one in beyond(trace, node, x, dims, reason))
    same = same_along(x, dims)
    return Flow(shape_of(node), layers, None if same is None else _put(same, dims, count))


def _doubt_indices(trace: Trace, indices: Sequence[Any], reason: str) -> None:
    for one in indices:
        for layer in trace.tensor(one).layers:
            trace.labels.doubt(layer, reason)


def _put(tensor: Tensor, dims: range, count: int) -> Tensor:
    """A tensor of size 1 along dimensions, with another number of them."""
    shape = tuple(tensor.shape)
    return tensor.reshape(*shape[: dims.start], *(1,) * count, *shape[dims.stop :])


def fills(node: Node) -> bool:
    """Tell whether an operator writes one value where a mask of its shape is true.

    Args:
        node: the operator.
    """
    if operator_name(node) != "index_put" or given(node)[3:] == (True,):
        return False
    first, value = given(node)[1][0], given(node)[2]
    is_single = len(given(node)[1]) == 1 and value.meta["val"].numel() == 1
    return is_single and first.meta["val"].dtype == torch.bool and shape_of(first) == shape_of(node)


def trace_filled(trace: Trace, node: Node) -> Flow:
    """Write one value element by element."""
    x, where = trace.tensor(given(node)[0]), trace.tensor(given(node)[1][0])
    layers = tie_operands(trace, [x, where], x.shape, "index_put")
    if not trace.has_values:
        return Flow(x.shape, layers)
    value = trace.tensor(given(node)[2]).known().reshape((1,) * x.ndim)
    chosen = where.known()
    kept, written = x.known(), torch.where(chosen == 0, x.known(), value)
    held = torch.where(chosen.isnan() & (kept != value), torch.nan, written)
    return Flow(x.shape, layers, settle(held))


def trace_put_at(trace: Trace, node: Node) -> Flow:
    """Write or add values at indices along dimensions, all of which stay."""
    x, values = trace.tensor(given(node)[0]), trace.tensor(given(node)[2])
    found = _indexed(node)
    if found is None:
        return doubtful(trace, node)
    dims, count = found
    _doubt_indices(trace, [one for one in given(node)[1] if one is not None], "index_put uses it")
    reason = "index_put puts values along them"
    rest = x.shape[: dims.start] + (1,) * len(dims) + x.shape[dims.stop :]
    whole = (*x.shape[: dims.start], *(1,) * count, *x.shape[dims.stop :])
    placed = beyond(trace, node, x, dims, reason)
    operands = [Flow(whole, tuple(_put(layer, dims, count) for layer in placed))]
    if values.ndim > len(whole):
        return doubtful(trace, node)
    wide = Flow((1,) * (len(whole) - values.ndim) + values.shape, _aligned(values, len(whole)))
    put = range(dims.start, dims.start + count)
    sizes = tuple(1 if d in put else size for d, size in enumerate(wide.shape))
    operands.append(Flow(sizes, beyond(trace, node, wide, put, reason)))
    met = tie_operands(trace, operands, whole, "index_put")
    layers = tuple(_put(layer, put, len(dims)) for layer in met)
    if not trace.has_values:
        return Flow(x.shape, layers)
    zero = zero_along(x, dims)
    added = zero_along(Flow(wide.shape, (), aligned(values.known(), len(whole))), put)
    constant = None
    if zero is not None and added is not None:
        both = (zero == 0) & (_put(added, put, len(dims)) == 0)
        constant = settle(torch.where(both.expand(rest), 0.0, torch.nan).double())
    return Flow(x.shape, layers, constant)


def _aligned(flow: Flow, ndim: int) -> tuple[Layer, ...]:
    return tuple(aligned(layer, ndim) for layer in flow.layers)
